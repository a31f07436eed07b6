"""A run folder as a page that one can show: one self-contained HTML file, and Markdown of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from loralet.atomic import new_file, new_folder
from loralet.report.analysis import Analysis
from loralet.report.configurations import Configuration
from loralet.report.examples import Example, Guess
from loralet.report.figures import Drawing, draw
from loralet.report.figures.tradeoffs import amount, seconds
from loralet.report.text import signed
from loralet.training.loop import FEWEST_STEPS, USUAL_EPOCHS

FRONTS = {"trainable": "size", "bytes": "disk", "seconds": "time"}
BASES = ("majority", "random-head", "tfidf-svm", "linear-probe", "full")
TEXT_SHOWN = 600
"""Most characters of a row's text in the report."""
PROBABILITIES_SHOWN = 6
"""Most labels whose probabilities are all written beside a prediction; of more, only the predicted one's is."""


@dataclass(frozen=True)
class Field:
    """One cell of a table: what is written, what it sorts by (None: last), and whether it is a number."""

    text: str
    key: float | str | None
    number: bool = True


@dataclass(frozen=True)
class Line:
    """One row of a table: its cells, and how it is marked."""

    cells: tuple[Field, ...]
    winner: bool
    tied: bool
    base: bool


@dataclass(frozen=True)
class Table:
    """Headings with what they mean, and the rows under them; columns in which no row says anything are left out."""

    name: str
    headings: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


NAME = ("configuration", "what was trained; ★ chosen on validation, ≈ not distinguishable from it")
RESULTS = (
    NAME,
    ("val.", "accuracy on the validation split, mean over seeds"),
    ("test", "accuracy on the test split, mean over seeds"),
    ("95 % interval", "of the test accuracy: Wilson for one seed, bootstrap over seeds and rows for several"),
    ("± seeds", "standard deviation of the test accuracy over seeds"),
    ("vs ★", "accuracy less the chosen configuration's, in points, on the same rows"),
    ("p (Holm)", "two-sided, corrected for the number of comparisons"),
    ("F1", "macro F1 on the test split"),
    ("ECE", "expected calibration error, 15 bins"),
    ("α/r × lr", "effective scale times learning rate (alpha / sqrt(rank) for rslora)"),
    ("conv.", "first check at the target accuracy, median over seeds; >N: not within N steps"),
    ("spikes", "loss spikes a run"),
    ("ended", "how its runs ended, where not as planned"),
)
COSTS = (
    NAME,
    ("test", "accuracy on the test split, mean over seeds"),
    ("trained", "numbers trained"),
    ("share", "of all numbers of the model"),
    ("on disk", "weights of one run"),
    ("seconds", "training time of a run, its even share of its pack"),
    ("rows/s", "training rows in that time"),
    ("peak memory", "of the whole process"),
    ("rows to target", "training rows until the first check at the target accuracy"),
    ("s to target", "seconds until then, at the run's own pace"),
    ("Pareto front", "costs by which nothing else is at least as cheap and as good"),
)


def tables(analysis: Analysis) -> dict[str, Table]:
    """What came out, and what it cost: base rows first, then LoRA rows in the order they were run, then what was made of them."""
    rows = sorted(
        analysis.configurations,
        key=lambda row: BASES.index(row.role) if row.role in BASES else len(BASES) + (row.role != "lora"),
    )
    return {
        "results": _table("results", RESULTS, rows, [_result_cells(row) for row in rows]),
        "costs": _table("costs", COSTS, rows, [_cost_cells(row) for row in rows]),
    }


def _table(
    name: str, headings: Sequence[tuple[str, str]], rows: Sequence[Configuration], cells: list[list[Field]]
) -> Table:
    kept = [i for i in range(len(headings)) if any(line[i].text not in ("–", "") for line in cells)]
    lines = [
        Line(tuple(line[i] for i in kept), row.winner, row.tied, row.role != "lora") for row, line in zip(rows, cells, strict=True)
    ]  # fmt: skip
    return Table(name, tuple(headings[i] for i in kept), tuple(lines))


def _name_cell(row: Configuration) -> Field:
    mark = " ★" if row.winner else " ≈" if row.tied else ""
    return Field(f"{row.name}{' (chance)' if row.role == 'random-head' else ''}{mark}", row.name, False)


def _result_cells(row: Configuration) -> list[Field]:
    test, versus, c = row.test, row.versus, row.convergence
    return [
        _name_cell(row),
        _number(row.validation, "{:.4f}"),
        _number(test.mean if test else None, "{:.4f}"),
        Field(f"{test.low:.3f}–{test.high:.3f}" if test else "–", test.low if test else None),
        _number(test.sd if test else None, "{:.4f}"),
        Field(signed(-100 * versus.difference) if versus else "–", -versus.difference if versus else None),
        Field(_p_value(versus.p_holm) if versus else "–", versus.p_holm if versus else None),
        _number(row.f1, "{:.4f}"),
        _number(row.ece, "{:.3f}"),
        _number(row.effective, "{:.3g}"),
        Field(c.text if c else "–", c.step + 0.5 * c.censored if c else None),
        _number(row.spikes, "{:.2g}"),
        Field(row.status, row.status, False),
    ]


def _cost_cells(row: Configuration) -> list[Field]:
    late, target = row.convergence is not None and row.convergence.censored, row.to_target_seconds
    return [
        _name_cell(row),
        _number(row.test.mean if row.test else None, "{:.4f}"),
        _number(row.trainable, "{:,}"),
        Field(
            f"{100 * row.trainable / row.total:.2f} %" if row.total else "–",
            row.trainable / row.total if row.total else None,
        ),
        Field(amount(row.bytes, "bytes") if row.bytes else "–", row.bytes),
        Field(seconds(row.seconds) if row.seconds is not None else "–", row.seconds),
        _number(row.rows_per_second, "{:,.0f}"),
        Field(amount(row.memory, "bytes") if row.memory else "–", row.memory),
        Field("not reached", None) if late else _number(row.rows, "{:,.0f}"),
        Field("not reached", None) if late else Field(seconds(target) if target is not None else "–", target),
        Field(", ".join(FRONTS[cost] for cost in row.front) or "–", len(row.front), False),
    ]


def _number(value: float | None, form: str) -> Field:
    return Field(form.format(value).replace("-", "−") if value is not None else "–", value)


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


@dataclass(frozen=True)
class Gathering:
    """A table of test rows with its heading and what to know about it."""

    heading: str
    note: str
    rows: tuple[Example, ...]


def gatherings(analysis: Analysis) -> list[Gathering]:
    """The test rows to show."""
    found = analysis.examples
    if found is None:
        return []
    order = " · ".join(analysis.data["labels"])
    several = len(analysis.data["labels"]) <= PROBABILITIES_SHOWN
    legend = f" Small figures are probabilities in per cent, in the order {order}." if several else ""
    rows = f"{analysis.data['test_rows']:,}"
    lora = sum(len(row.runs) for row in analysis.configurations if row.role == "lora")
    return [
        Gathering(
            "Ten rows drawn by lot" if len(found.sampled) == 10 else "Rows drawn by lot",
            f"Drawn from the {rows} test rows with a fixed seed. The random head is chance: the same frozen encoder under a classifier that was "
            f"never trained.{legend}",
            found.sampled,
        ),
        Gathering(
            "Most confidently wrong",
            "The wrong predictions of highest probability. † also stands among the likely mislabelled rows.",
            found.wrong,
        ),
        Gathering(
            "Likely mislabelled",
            f"{found.suspect_count:,} of {rows} rows ({100 * found.suspect_count / analysis.data['test_rows']:.1f} %) are labelled against the mean "
            f"opinion of the {lora or 1} runs, by the simplest rule of confident learning: a class other than the label is past its own mean "
            "confidence, and is the likeliest of those. Below are the clearest. "
            "It is suspicion, not proof: the runs share an encoder and may err alike.",
            found.suspects,
        ),
    ]


def spread(guess: Guess) -> str:
    """All probabilities in per cent, where there are few enough to read."""
    few = len(guess.probabilities) <= PROBABILITIES_SHOWN
    return " · ".join(f"{100 * p:.0f}" for p in guess.probabilities) if few else ""


def cut(text: str) -> str:
    """A text on one line, no longer than the report shows."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[: TEXT_SHOWN - 1] + "…"


def training_length(steps: int | None, epochs: float | None) -> str:
    """How long the options asked to train, in words."""
    if steps:
        return f"{steps:,} steps"
    return f"{epochs:g} epochs" if epochs else f"{USUAL_EPOCHS} epochs (at least {FEWEST_STEPS} steps)"


def facts(analysis: Analysis) -> list[tuple[str, str]]:
    """What was run, as pairs of a name and its value."""
    data, training, env = analysis.data, analysis.training, analysis.environment
    rows = f"{data['train_rows']:,} for training, {data['validation_rows']:,} for validation, {data['test_rows']:,} for the test"
    length = training_length(training["steps"], training["epochs"])
    seeds = sorted({seed for row in analysis.configurations for seed in row.seeds})
    reads = {0: "never", 1: "once"}.get(analysis.test_reads, f"{analysis.test_reads} times")
    machine = f"{env.get('processor') or 'unknown processor'}, {env.get('cores')} cores, {env.get('threads')} threads"
    machine += f", {env['gpu']}" if env.get("gpu") else ""
    versions = ", ".join(f"{name} {env[name]}" for name in ("loralet", "commit", "python", "torch") if env.get(name))
    target = f"target {100 * analysis.target:g} % on {min(training['validation_sample'], data['validation_rows']):,} validation rows"
    pairs = [
        ("Data", f"{data['source']}: {rows}; {len(data['labels'])} labels ({', '.join(data['labels'][:8])}{', …' * (len(data['labels']) > 8)})"),
        ("Fingerprint", data["fingerprint"][:16]),
        ("Test split", f"read {reads}; choosing was done on validation"),
        *(("Model", f"{' = '.join(m.names)}{f', fingerprint {m.fingerprint[:16]}' if m.fingerprint else ''}") for m in analysis.models),
        ("Training", f"{length} of {training['batch_size']} rows, {training['schedule']} schedule, warm-up {100 * training['warmup']:g} %, "
                     f"{training['head']} head, texts cut at {training['max_length']} tokens"),
        ("Checks", f"every {training['eval_every']} steps, {target}"),
        ("Seeds", ", ".join(map(str, seeds)) + (" (a single one)" if len(seeds) == 1 else "")),
        ("Machine", f"{machine}; {env.get('platform', '')}"),
        ("Versions", versions),
        ("Started", str(env.get("started", ""))),
    ]  # fmt: skip
    return [(name, value) for name, value in pairs if value]


def headline(analysis: Analysis) -> list[tuple[str, str]]:
    """The few numbers that stand out at the top."""
    best = analysis.best
    shown = [("chosen on validation", best.name)]
    if best.test:
        shown.append(("test accuracy", f"{100 * best.test.mean:.1f} %"))
    elif best.validation is not None:
        shown.append(("validation accuracy", f"{100 * best.validation:.1f} %"))
    shown.append(("numbers trained", f"{best.trainable:,}"))
    if best.convergence:
        shown.append((f"steps to {100 * analysis.target:g} %", best.convergence.text))
    return shown


def markdown(text: object) -> str:
    """Text that Markdown and its HTML leave as it is."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|$~#" else c for c in line)


def _templates(escape: bool) -> Environment:
    templates = Environment(
        loader=PackageLoader("loralet.report"), autoescape=escape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    templates.filters |= {"md": markdown, "cut": cut, "spread": spread, "svg": lambda panel: Markup(panel.svg)}
    return templates


def _context(analysis: Analysis, drawings: list[Drawing]) -> dict[str, Any]:
    return {
        "analysis": analysis,
        "headline": headline(analysis),
        "facts": facts(analysis),
        "tables": tables(analysis),
        "drawings": drawings,
        "findings_under": "grid" if any(drawing.name == "grid" for drawing in drawings) else "course",
        "gatherings": gatherings(analysis),
    }


def render_html(analysis: Analysis, drawings: list[Drawing]) -> str:
    """The report as one page, with nothing to fetch."""
    return _templates(True).get_template("report.html.j2").render(_context(analysis, drawings))


def render_markdown(analysis: Analysis, drawings: list[Drawing], figures: str) -> str:
    """The report as Markdown; ``figures`` is the folder of its pictures, as the text refers to it."""
    return _templates(False).get_template("report.md.j2").render(_context(analysis, drawings), figures=figures)


def write_report(analysis: Analysis, html: Path | None, md: Path | None) -> list[Path]:
    """Write the report, each file whole or not at all; returns what was written.

    Args:
        analysis: the numbers.
        html: where the page goes, if one is wanted.
        md: where the Markdown goes, if wanted; its pictures go into a folder beside it.
    """
    drawings = draw(analysis)
    written: list[Path] = []
    if html:
        with new_file(html) as temporary:
            temporary.write_text(render_html(analysis, drawings), encoding="utf-8")
        written.append(html)
    if md:
        figures = md.with_name(f"{md.stem}-figures")
        theme = _templates(False).get_template("theme.css.j2").render()
        with new_folder(figures) as folder:
            for panel in (panel for drawing in drawings for panel in drawing.panels):
                (folder / f"{panel.name}.svg").write_text(_alone(panel.svg, theme), encoding="utf-8")
        with new_file(md) as temporary:
            temporary.write_text(render_markdown(analysis, drawings, figures.name), encoding="utf-8")
        written += [md, figures]
    return written


def _alone(svg: str, theme: str) -> str:
    """A panel as a file of its own: it brings the page's colours with it."""
    end = svg.index(">")
    style = f"<style>{theme}svg{{color:var(--ink);background:var(--page);font-family:var(--sans)}}</style>"
    return f"{svg[: end + 1]}{style}{svg[end + 1 :]}"
