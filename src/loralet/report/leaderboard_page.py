"""A leaderboard as one HTML page, with the style and the sortable tables of the report."""

from __future__ import annotations

from pathlib import Path

from loralet import __version__
from loralet.atomic import new_file
from loralet.report.leaderboard import Leaderboard, Standing
from loralet.report.leaderboard_table import p_text
from loralet.report.page import html_templates
from loralet.report.tables import MISSING, Field, Line, Table
from loralet.report.wording import amount, listed, percent, plural, points, signed
from loralet.terminal import visible

RUNS = (
    ("run", "★ best on these rows, ≈ not distinguishable from it"),
    ("accuracy", "share of the rows that it classifies correctly"),
    ("95 % interval", "Wilson's interval"),
    ("macro F1", "mean F1 over the classes, as scikit-learn defines it"),
    ("vs ★", "accuracy minus that of the best run, in points, on the same rows"),
    ("p (Holm)", "two-sided, corrected for all pairs of runs"),
    ("ms per text", "prediction time of one text, in a call with many"),
    ("parameters", "of the whole model"),
    ("on disk", "size of the trained weights"),
    ("model", "backbone"),
)
PAIRS = (
    ("pair", "the run with the higher accuracy first"),
    ("difference", "of the accuracies, in points"),
    ("95 % interval", "bootstrap over the rows, in points"),
    ("p", "without correction"),
    ("p (Holm)", "corrected for all pairs"),
)


def runs_table(found: Leaderboard) -> Table:
    """The runs, the best first."""
    lines = (_line(standing, found.metric) for standing in found.standings)
    return Table("runs", RUNS, tuple(lines))


def _line(standing: Standing, metric: str) -> Line:
    one, scores, versus = standing.contender, standing.scores, standing.versus
    low, high = scores.intervals.get(metric, (None, None))
    known = low is not None and high is not None
    mark = " ★" if versus is None else " ≈" if standing.tied else ""
    f1 = scores.values.get("macro_f1")
    return Line(
        (
            Field(f"{one.name}{mark}", one.name, False),
            Field(f"{scores[metric]:.4f}", scores[metric]),
            Field(f"{low:.3f}–{high:.3f}" if known else MISSING, low),
            Field(MISSING if f1 is None else f"{f1:.4f}", f1),
            Field(signed(-100 * versus.difference) if versus else MISSING, -versus.difference if versus else None),
            Field(p_text(versus.p_holm) if versus else MISSING, versus.p_holm if versus else None),
            Field(MISSING if one.seconds is None else f"{1000 * one.seconds:.2g}", one.seconds),
            Field(MISSING if one.parameters is None else amount(one.parameters, "trainable"), one.parameters),
            Field(MISSING if one.bytes is None else amount(one.bytes, "bytes"), one.bytes),
            Field(one.model, one.model, False),
        ),
        winner=versus is None,
        tied=standing.tied,
        base=False,
    )


def pairs_table(found: Leaderboard) -> Table:
    """The tests of all pairs."""
    lines = (
        Line(
            (
                Field(f"{pair.better} against {pair.worse}", pair.better, False),
                Field(signed(100 * pair.difference), pair.difference),
                Field(f"{signed(100 * pair.low)} to {signed(100 * pair.high)}", pair.low),
                Field(p_text(pair.p), pair.p),
                Field(p_text(pair.p_holm), pair.p_holm),
            ),
            winner=False,
            tied=not pair.distinguishable,
            base=False,
        )
        for pair in found.pairs
    )
    return Table("pairs", PAIRS, tuple(lines))


def answer(found: Leaderboard) -> list[str]:
    """The result in sentences."""
    best, *others = found.standings
    low, high = best.scores.intervals.get(found.metric, (None, None))
    interval = f" (95 % interval {100 * low:.1f}–{percent(high)})" if low is not None and high is not None else ""
    right = percent(best.scores[found.metric])
    sentences = [f"{best.contender.name} classifies {right} of {found.rows:,} rows correctly{interval}."]
    tied, worse = [s for s in others if s.tied], [s for s in others if not s.tied]
    if worse:
        gaps = [f"{s.contender.name} ({points(s.versus.difference)})" for s in worse if s.versus]
        sentences.append(f"It is more accurate than {listed(gaps)}.")
    if tied:
        names = listed([s.contender.name for s in tied])
        sentences.append(f"The paired test cannot distinguish it from {names} on these rows.")
    return sentences


def render_page(found: Leaderboard) -> str:
    """The page, without external resources."""
    template = html_templates().get_template("leaderboard.html.j2")
    text = template.render(
        version=__version__,
        title=f"{plural(len(found.standings), 'run')} on {found.source}",
        answer=answer(found),
        method=found.pairs[0].method,
        timing=found.timing,
        runs=runs_table(found),
        pairs=pairs_table(found),
    )
    return visible(text)


def write_page(found: Leaderboard, path: Path) -> None:
    """Write the page atomically; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        temporary.write_text(render_page(found), encoding="utf-8")
