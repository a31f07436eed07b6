"""Loss and accuracy over the steps, one panel per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from loralet.report.analysis import Analysis
from loralet.report.curves import Curve
from loralet.report.figures.style import ACCENT, DASHES, INK, MUTED, Panel, panel, rules, series, sheet, styled
from loralet.runs.run import Role

DOTTED = (1.0, 1.5)
"""Dashes of runs without an adapter."""


def loss_panels(analysis: Analysis) -> list[Panel]:
    """Smoothed training loss of every run."""
    panels: list[Panel] = []
    for model, curves in _by_model(analysis.losses).items():
        with styled():
            axes = _axes(curves)
            loss_axis(axes, curves)
            panels.append(_panel(analysis, axes, "loss", model, curves, "training loss, smoothed"))
    return panels


def accuracy_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy of every run on the validation or out-of-fold sample."""
    panels: list[Panel] = []
    for model, curves in _by_model(analysis.accuracies).items():
        with styled():
            axes = _axes(curves)
            _accuracy_axis(axes, curves, analysis.target)
            panels.append(
                _panel(analysis, axes, "accuracy", model, curves, f"accuracy on the {analysis.data.held_out} sample")
            )
    return panels


def _by_model(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    models: dict[str, list[Curve]] = {}
    for curve in curves:
        models.setdefault(curve.model, []).append(curve)
    return models


def accuracy_floor(curves: Sequence[Curve], target: float) -> float:
    """Lower end of the accuracy axis: below every check after the first tenth of the steps, and below the target."""
    last = max(curve.steps[-1] for curve in curves)
    pairs = ((step, y) for curve in curves for step, y in zip(curve.steps, curve.y, strict=True))
    later = [y for step, y in pairs if y is not None and step > last / 10]
    return max(0.0, min([*later, target]) - 0.01)


def _alphas(curves: Sequence[Curve]) -> list[float]:
    return sorted({curve.alpha for curve in curves if curve.alpha})


def _axes(curves: Sequence[Curve]) -> Axes:
    """Draw the curves. The shown run is drawn last, on top of the others."""
    ranks, alphas = [curve.rank for curve in curves], _alphas(curves)
    axes = sheet().add_subplot()
    rules(axes)
    for curve in sorted(curves, key=lambda curve: curve.best):
        y = [float("nan") if value is None else value for value in curve.y]
        if curve.best:
            axes.plot(curve.steps, y, color=ACCENT, linewidth=2.6)
        else:
            dashes = DASHES[alphas.index(curve.alpha) % len(DASHES)] if curve.alpha else DOTTED
            axes.plot(curve.steps, y, color=series(ranks, curve.rank), linewidth=1.2, linestyle=_style(dashes))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    axes.set_xlabel("optimiser step")
    axes.margins(x=0.01)
    return axes


def _style(dashes: tuple[float, ...]) -> tuple[float, tuple[float, ...]] | Literal["-"]:
    """A matplotlib line style: the dashes, or a solid line if there are none."""
    return (0.0, dashes) if dashes else "-"


def loss_axis(axes: Axes, curves: Sequence[Curve]) -> None:
    """Use a logarithmic axis if losses differ by more than a factor of four."""
    values = [y for curve in curves for y in curve.y if y]
    if values and max(values) > 4 * min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _accuracy_axis(axes: Axes, curves: Sequence[Curve], target: float) -> None:
    top = max([target, *(y for curve in curves for y in curve.y if y is not None)])
    axes.set_ylim(accuracy_floor(curves, target), min(1.0, top + 0.012))
    axes.axhline(target, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
    right = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "bottom"}
    axes.text(1.0, target, "target", color=MUTED, fontsize=10, **right)  # type: ignore[arg-type]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))


def _panel(analysis: Analysis, axes: Axes, kind: str, model: str, curves: Sequence[Curve], heading: str) -> Panel:
    name = f"{model}\n" if len(analysis.models) > 1 else ""
    axes.set_title(f"{name}{heading}", loc="left", color=INK, fontsize=10.5, pad=8)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=_legend(curves), loc="outside lower left", ncols=4)
    subject = "Training loss" if kind == "loss" else "Validation accuracy"
    title = f"{subject} over the steps{f', {model}' if model else ''}"
    description = f"{len(curves)} runs"
    best = next((curve for curve in curves if curve.best), None)
    if best and best.y[-1] is not None:
        description += f"; the chosen run, {best.run}, ends at {best.y[-1]:.3f}"
    return panel(figure, f"{kind}-{_slug(model)}", title, description)


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text).strip("-") or "model"


def _legend(curves: Sequence[Curve]) -> list[Line2D]:
    ranks, alphas = [curve.rank for curve in curves], _alphas(curves)
    best = next((curve for curve in curves if curve.best), None)
    handles: list[Line2D] = []
    if best:
        name = f"{best.configuration.split(' · ')[0]} (chosen)"
        handles.append(Line2D([], [], color=ACCENT, linewidth=2.6, label=name))
    handles += [
        Line2D([], [], color=series(ranks, rank), linewidth=1.6, label=f"rank {rank}")
        for rank in sorted({r for r in ranks if r})
    ]
    for i, alpha in enumerate(alphas if len(alphas) > 1 else ()):
        handles.append(
            Line2D([], [], color=MUTED, linewidth=1.2, linestyle=_style(DASHES[i % len(DASHES)]), label=f"α {alpha:g}")
        )
    plain: dict[Role, str] = {"linear-probe": "probe", "full": "full fine-tuning"}
    for role, label in plain.items():
        if any(curve.role == role for curve in curves):
            handles.append(Line2D([], [], color=MUTED, linewidth=1.2, linestyle=(0, DOTTED), label=label))
    return handles
