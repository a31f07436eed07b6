"""Loss and accuracy against the step, one panel for each model."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from loralet.report.analysis import Analysis, Curve
from loralet.report.figures.style import ACCENT, DASHES, INK, MUTED, Panel, panel, rules, series, sheet, styled


def loss_panels(analysis: Analysis) -> list[Panel]:
    """Smoothed training loss of every run."""
    return [_draw(analysis, model, curves, "loss") for model, curves in _by_model(analysis.losses).items()]


def accuracy_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy of every run on the validation sample."""
    return [_draw(analysis, model, curves, "accuracy") for model, curves in _by_model(analysis.accuracies).items()]


def _by_model(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    models: dict[str, list[Curve]] = {}
    for curve in curves:
        models.setdefault(curve.model, []).append(curve)
    return models


def accuracy_floor(curves: Sequence[Curve], target: float) -> float:
    """Lower end of the accuracy axis: below every check after the first tenth of the steps, so that the finish is not squeezed."""
    last = max(curve.steps[-1] for curve in curves)
    later = [
        y
        for curve in curves
        for step, y in zip(curve.steps, curve.y, strict=True)
        if y is not None and step > last / 10
    ]
    return max(0.0, min([*later, target]) - 0.01)


def _draw(analysis: Analysis, model: str, curves: list[Curve], kind: str) -> Panel:
    ranks, alphas = [curve.rank for curve in curves], sorted({curve.alpha for curve in curves if curve.alpha})
    whose = f"{model}\n" if len(analysis.models) > 1 else ""
    with styled():
        figure = sheet()
        axes = figure.add_subplot()
        rules(axes)
        for curve in sorted(curves, key=lambda curve: curve.best):
            y = [float("nan") if value is None else value for value in curve.y]
            colour = ACCENT if curve.best else series(ranks, curve.rank)
            dashes = DASHES[alphas.index(curve.alpha) % len(DASHES)] if curve.alpha else (1, 1.5)
            width = 2.6 if curve.best else 1.2
            axes.plot(
                curve.steps,
                y,
                color=colour,
                linewidth=width,
                linestyle=(0, dashes if dashes and not curve.best else ()) if dashes and not curve.best else "-",
            )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("optimiser step")
        axes.margins(x=0.01)
        if kind == "loss":
            _loss_axis(axes, curves)
            axes.set_title(f"{whose}training loss, smoothed", loc="left", color=INK, fontsize=10.5, pad=8)
        else:
            floor = accuracy_floor(curves, analysis.target)
            top = max([analysis.target, *(y for curve in curves for y in curve.y if y is not None)])
            axes.set_ylim(floor, min(1.0, top + 0.012))
            axes.axhline(analysis.target, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            axes.text(
                1.0,
                analysis.target,
                "target",
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="bottom",
                color=MUTED,
                fontsize=9,
            )
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
            axes.set_title(f"{whose}accuracy on the validation sample", loc="left", color=INK, fontsize=10.5, pad=8)
        handles = _legend(curves, ranks, alphas)
        figure.legend(handles=handles, loc="outside lower left", ncols=4)
        title = f"{'Training loss' if kind == 'loss' else 'Validation accuracy'} against the step{f', {model}' if model else ''}"
        best = next((c for c in curves if c.best), None)
        text = f"{len(curves)} runs" + (
            f"; the run that validation chose, {best.run}, ends at {best.y[-1]:.3f}"
            if best and best.y[-1] is not None
            else ""
        )
        return panel(figure, f"{kind}-{_slug(model)}", title, text)


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text).strip("-") or "model"


def _loss_axis(axes, curves: Sequence[Curve]) -> None:  # type: ignore[no-untyped-def]
    """Losses on a logarithmic axis where they span more than a factor of four."""
    values = [y for curve in curves for y in curve.y if y]
    if values and max(values) > 4 * min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(curves: Sequence[Curve], ranks: list[int | None], alphas: list[float]) -> list[Line2D]:
    best = next((curve for curve in curves if curve.best), None)
    handles = (
        [Line2D([], [], color=ACCENT, linewidth=2.6, label=f"{best.configuration.split(' · ')[0]} (chosen)")]
        if best
        else []
    )
    handles += [
        Line2D([], [], color=series(ranks, rank), linewidth=1.6, label=f"rank {rank}")
        for rank in sorted({r for r in ranks if r})
    ]
    if len(alphas) > 1:
        handles += [
            Line2D(
                [],
                [],
                color=MUTED,
                linewidth=1.2,
                linestyle=(0, DASHES[i % len(DASHES)]) if DASHES[i % len(DASHES)] else "-",
                label=f"α {a:g}",
            )
            for i, a in enumerate(alphas)
        ]
    for role, label in (("linear-probe", "probe"), ("full", "full fine-tuning")):
        if any(curve.role == role for curve in curves):
            handles.append(Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, (1, 1.5)), label=label))
    return handles
