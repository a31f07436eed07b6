"""The results table of a run folder for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.adapters.spec import METHOD_NAMES
from loralet.ranking import NAMES, Rank
from loralet.report.label_table import label_table
from loralet.runs.results import DataFacts, Results, RunResult
from loralet.runs.run import TRAINED, Role
from loralet.runs.selection import chosen_run, rank_of_run
from loralet.tasks.base import Scores
from loralet.terminal import terminal

ROLES: dict[Role, str] = {
    "majority": "majority class",
    "random-head": "random head (chance)",
    "tfidf-svm": "TF-IDF + SVM",
    "tfidf-lr": "TF-IDF + LR",
    "linear-probe": "linear probe",
    "full": "full fine-tuning",
    "lora": "LoRA",
    "average": "average of seeds",
    "ensemble": "ensemble",
    "hybrid": "hybrid",
}
"""Names of the roles. Other baselines of a task are named by their role."""
HEADINGS = ("", "run", "val.", "test (95 % interval)", "F1", "conv.", "trained", "s", "")
HELD_OUT, ENDED = 2, 8
"""Columns that are omitted if they are empty: scores on validation or out-of-fold rows, which are the main ones without
a test split, and how a run ended."""
LEAST_NEEDED = (5, 0, 6, 8, 7, 4)
"""Columns to omit, in this order, if the terminal is too narrow. Numbers are never truncated."""
GAP = 2
CHOSEN, TIED = "★", "≈"
PIPE_WIDTH = 200
"""Width of the output in characters if it is not a terminal."""
MISSING = "–"
NOTHING: Rank = (-inf, -inf, 0)
"""Below every rank."""


def headings(data: DataFacts) -> tuple[str, ...]:
    """The headings of a table. Without a test split, the held-out scores have its column."""
    held_out = "out-of-fold" if data.folds else HEADINGS[HELD_OUT]
    main = HEADINGS[HELD_OUT + 1] if data.test_rows else f"{held_out} (95 % interval)"
    return (*HEADINGS[:HELD_OUT], held_out if data.test_rows else "", main, *HEADINGS[HELD_OUT + 2 :])


def cells(run: RunResult, metric: str, tested: bool = True) -> tuple[str, ...]:
    """The cells of one run, in the order of :data:`HEADINGS`.

    Args:
        run: the run.
        metric: the main metric of the task.
        tested: whether there is a test split.
    """
    main = run.test if tested else run.validation
    converged = MISSING
    if run.role in TRAINED:
        converged = str(run.converged_step) if run.converged_step else f">{run.steps}"
    name = METHOD_NAMES[run.adapter.method] if run.role == "lora" and run.adapter else ROLES.get(run.role, run.role)
    return (
        name,
        run.id if run.model else "",
        (f"{run.validation[metric]:.4f}" if run.validation else MISSING) if tested else "",
        _with_interval(main, metric) if main else MISSING,
        _optional(main.values.get("macro_f1") if main else None, ".4f"),
        converged,
        f"{run.trainable_parameters:,}",
        _optional(run.train_seconds, ".0f"),
        "" if run.status == "finished" else run.status,
    )


def _with_interval(scores: Scores, metric: str) -> str:
    interval = scores.intervals.get(metric)
    return f"{scores[metric]:.4f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")


def _optional(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def leaderboard(results: Results, chosen: str) -> list[RunResult]:
    """The runs, baselines included, by what selects on validation rows, the best first; rows without scores last."""

    def key(run: RunResult) -> tuple[bool, Rank, bool]:
        ranked = run.validation is not None
        return ranked, rank_of_run(run, results.selection) if ranked else NOTHING, run.id == chosen

    return sorted(results.runs, key=key, reverse=True)


def columns_that_fit(
    rows: Sequence[tuple[str, ...]], width: int | None, headings: tuple[str, ...] = HEADINGS
) -> list[int]:
    """The columns that fit into a width.

    Args:
        rows: the cells.
        width: characters; None: all columns fit.
        headings: the headings.
    """
    empty = [i for i in (HELD_OUT, ENDED) if not headings[i] and not any(row[i] for row in rows)]
    columns = [i for i in range(len(headings)) if i not in empty]
    widths = [max(len(row[i]) for row in (headings, *rows)) + GAP for i in range(len(headings))]
    for column in LEAST_NEEDED:
        if width is None or sum(widths[i] for i in columns) - GAP <= width:
            break
        columns = [i for i in columns if i != column]
    return columns


def results_table(
    results: Results, width: int | None = None, backends: Sequence[str] = (), tied: Collection[str] = ()
) -> RenderableType:
    """The results table of a run folder, followed by the data, the chosen run and the backends.

    Args:
        results: results of the run folder.
        width: maximum number of characters; None: no limit.
        backends: :func:`loralet.report.summary.backend_lines`.
        tied: ids of the runs that cannot be distinguished from the chosen one
            (:func:`loralet.report.run_tests.tied_runs`).

    Raises:
        RunError: no run finished training.
    """
    chosen = chosen_run(results).id
    runs = leaderboard(results, chosen)
    tested, names = results.data.test_rows > 0, headings(results.data)
    marks = dict.fromkeys(tied, TIED) | {chosen: CHOSEN}
    rows = [_marked(cells(run, results.metric, tested), marks.get(run.id, "")) for run in runs]
    columns = columns_that_fit(rows, width, names)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    for i in columns:
        table.add_column(names[i], justify="left" if names[i] in ("run", "") else "right", no_wrap=True)
    for run, row in zip(runs, rows, strict=True):
        shown = tuple("" if i == 1 and 0 in columns and row[1] == row[0] else row[i] for i in columns)
        table.add_row(*shown, style="bold green" if run.id == chosen else "")
    lines = (Text(line) for line in _lines(results, runs, chosen, backends, bool(tied)))
    return Group("", table, "", *lines, *label_table(results))


def _marked(row: tuple[str, ...], mark: str) -> tuple[str, ...]:
    """The cells with a mark after the run id. A row without an id has its role there, so that the role column can be
    omitted.
    """
    role, run, *rest = row
    end = f" {mark}" if mark else ""
    return (role if run else role + end, (run or role) + end, *rest)


def _lines(results: Results, runs: Sequence[RunResult], chosen: str, backends: Sequence[str], tied: bool) -> list[str]:
    data = results.data
    counts = {"training": data.train_rows, "validation": data.validation_rows, "test": data.test_rows}
    rows = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return [
        *(f"{run.id}: {_members(run)}" for run in runs if run.members),
        *_default_lines(runs),
        f"{data.source}: {rows} rows{f', {data.folds} folds' if data.folds else ''}; {len(data.labels)} labels",
        *_origin(results, chosen),
        *([_tied_line(results)] if tied else []),
        *(f"backend: {line}" for line in backends),
    ]


def _origin(results: Results, chosen: str) -> list[str]:
    """Which rows the scores come from, and which choices those rows decided."""
    data, selection = results.data, results.selection
    by = "" if selection == results.metric else f" by {NAMES.get(selection, selection)}"
    read = f"the test split was read {times(results.test_reads)}"
    if data.folds:
        line = f"out-of-fold: each row is classified by a run trained without its fold; {chosen} is trained on all rows"
        return [f"{line}; {read}" if data.test_rows else line]
    if data.test_rows:
        return [f"chosen on validation{by}: {chosen}; {read}"]
    return [
        f"chosen on validation{by}: {chosen}; no test split: the same rows selected its state, so its scores on them "
        "are slightly optimistic"
    ]


def _tied_line(results: Results) -> str:
    rows = "test" if results.data.test_rows else results.data.held_out
    return f"{TIED} not distinguishable from it on the {rows} rows (paired test with Holm's correction)"


def _default_lines(runs: Sequence[RunResult]) -> list[str]:
    """What the default configuration of ``loralet train`` is, if the folder is a study that contains it."""
    own = [run for run in runs if run.default and run.adapter]
    if not own:
        return []
    adapter, rates = own[0].adapter, ", ".join(dict.fromkeys(f"{run.learning_rate:g}" for run in own))
    assert adapter is not None
    names, settings = ", ".join(sorted(run.id for run in own)), f"rank {adapter.rank}, alpha {adapter.alpha:g}"
    return [f"{names}: the default of loralet train ({settings}, learning rate {rates}, all linear layers)"]


def _members(run: RunResult) -> str:
    """The ids of the combined runs; of a hybrid with their weights."""
    members = run.members or ()
    if run.encoder_weight is None:
        return ", ".join(members)
    weights = (run.encoder_weight, 1 - run.encoder_weight)
    return ", ".join(f"{weight:.2f} {member}" for weight, member in zip(weights, members, strict=True))


def table_console() -> Console:
    """Console on standard output, wide enough for the whole table if it is not a terminal."""
    console = terminal(highlight=False)
    return console if console.is_terminal else terminal(highlight=False, width=max(console.width, PIPE_WIDTH))


def times(count: int) -> str:
    """``not at all``, ``once``, ``2 times``."""
    return {0: "not at all", 1: "once"}.get(count, f"{count} times")
