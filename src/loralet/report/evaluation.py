"""An evaluation on labelled rows, as JSON and as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loralet.records import plain
from loralet.report.statistics import wilson
from loralet.tasks.base import Scores, Task
from loralet.tasks.calibration import expected_calibration_error
from loralet.tasks.classes import ClassScores, Confusion
from loralet.tasks.coverage import Threshold, coverage_curve, threshold_for
from loralet.terminal import shown_label

CONFUSIONS = 5
"""Number of confusions shown in the terminal."""
MOST_CONFUSIONS = 50
"""Maximum number of confusions in JSON."""
MOST_CLASSES = 30
"""With more classes, the terminal shows only those of the lowest F1."""
MISSING = "–"


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Args:
        run: ids of the runs.
        data: where the rows come from.
        rows: number of rows.
        backend: the compute backends.
        scores: the metrics.
        ece: expected calibration error of the probabilities.
        classes: scores of each class; empty for a task without classes.
        confusions: the most frequent confusions.
        target: the wanted accuracy; None if none was given.
        threshold: the confidence whose predictions reach it; None if none does.
    """

    run: str
    data: str
    rows: int
    backend: str
    scores: Scores
    ece: float
    classes: tuple[ClassScores, ...]
    confusions: tuple[Confusion, ...]
    target: float | None
    threshold: Threshold | None

    def to_json(self) -> dict[str, object]:
        """One flat object; ``classes`` and ``confusions`` are lists of objects."""
        found: dict[str, object] = {"run": self.run, "data": self.data, "rows": self.rows, "backend": self.backend}
        found |= self.scores.to_json() | {"ece": self.ece}
        found["classes"] = [plain(scores) for scores in self.classes]
        found["confusions"] = [plain(confusion) for confusion in self.confusions]
        if self.target is not None:
            at = self.threshold
            found |= {"target_accuracy": self.target, "min_confidence": at.threshold if at else None}
            found |= {"coverage": at.coverage if at else None, "covered_accuracy": at.accuracy if at else None}
        return found


def evaluation_of(
    task: Task, logits: np.ndarray, targets: np.ndarray, target: float | None, names: tuple[str, str, str]
) -> Evaluation:
    """Evaluate logits ``[m c]`` of a single-label classifier.

    Args:
        task: the task.
        logits: logits of the rows.
        targets: their targets.
        target: the accuracy for which to find a threshold of the confidence, as a fraction; None: no threshold.
        names: ids of the runs, source of the rows, and backends.
    """
    run, data, backend = names
    probabilities, predicted = task.probabilities(logits), task.predicted(logits)
    threshold = None
    if target is not None:
        threshold = threshold_for(coverage_curve(probabilities.max(-1), predicted == targets), target)
    return Evaluation(
        run=run,
        data=data,
        rows=len(targets),
        backend=backend,
        scores=task.score(logits, targets),
        ece=expected_calibration_error(probabilities, targets),
        classes=task.classes(predicted, targets),
        confusions=task.confusions(predicted, targets, MOST_CONFUSIONS),
        target=target,
        threshold=threshold,
    )


def evaluation_text(found: Evaluation) -> Iterator[RenderableType]:
    """The evaluation for the terminal: metrics, classes, confusions and threshold."""
    scores = found.scores
    yield Text(f"{found.run} on {found.data}: {found.rows:,} rows")
    first, *others = scores.values
    low, high = scores.intervals[first]
    yield Text(f"{first.replace('_', ' ')}  {scores[first]:.4f}  (95 % interval {low:.4f}–{high:.4f})")
    words = [f"{name.replace('_', ' ').replace('f1', 'F1')} {scores[name]:.4f}" for name in others]
    loss = f"loss {scores.loss:.4f}" if scores.loss is not None else f"loss {MISSING}"
    yield Text("  ".join([*words, loss, f"calibration error {found.ece:.4f}"]))
    if found.classes:
        yield class_table(found.classes)
    if (left := len(found.classes) - MOST_CLASSES) > 0:
        yield Text(f"and {left} classes of higher F1; --format json has all of them")
    if found.confusions:
        yield Text("largest confusions (label, predicted as, rows):")
        for confusion in found.confusions[:CONFUSIONS]:
            pair = f"{confusion.label} → {confusion.predicted}"
            yield Text(f"  {pair}  {confusion.rows:,} ({100 * confusion.share:.1f} % of {confusion.label})")
    if found.target is not None:
        yield Text(threshold_text(found.target, found.threshold))


def class_table(classes: Sequence[ClassScores]) -> Table:
    """Precision, recall, F1 and support of each class; with many classes, of those with the lowest F1."""
    shown = list(classes)
    if len(shown) > MOST_CLASSES:
        shown = sorted(shown, key=lambda scores: 1.0 if scores.f1 is None else scores.f1)[:MOST_CLASSES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("class", overflow="fold")
    for heading in ("precision", "recall", "F1", "rows"):
        table.add_column(heading, justify="right", no_wrap=True)
    for scores in shown:
        table.add_row(Text(shown_label(scores.label)), *class_cells(scores))
    return table


def class_cells(scores: ClassScores) -> tuple[str, str, str, str]:
    """Precision, recall, F1 and support of a class as text."""
    values = (MISSING if value is None else f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1))
    precision, recall, f1 = values
    return precision, recall, f1, f"{scores.support:,}"


def threshold_text(target: float, threshold: Threshold | None) -> str:
    """The threshold for a wanted accuracy, in a sentence."""
    wanted = f"accuracy {100 * target:g} %"
    if threshold is None:
        return f"{wanted}: no --min-confidence reaches it on these rows"
    low, high = wilson(threshold.right, threshold.rows)
    return (
        f"{wanted}: --min-confidence {threshold.threshold:g} predicts {threshold.rows:,} of {threshold.total:,} rows "
        f"({100 * threshold.coverage:.1f} %), {100 * threshold.accuracy:.1f} % of them correctly (95 % interval "
        f"{100 * low:.1f}–{100 * high:.1f} %); chosen on these rows, so check it on others"
    )
