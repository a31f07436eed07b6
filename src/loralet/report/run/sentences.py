"""Title, answer and limitations of a single run, as rule-based sentences that do not depend on the data set."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loralet.adapters.spec import METHOD_NAMES
from loralet.report.configurations import Model
from loralet.report.run.models import Measured, ModelRow, level_text, strongest_linear
from loralet.report.wording import NO_BREAK, capitalised, listed, p_value, percent, plural, points, signed
from loralet.runs.record import Record
from loralet.runs.results import RunResult, unfinished_text
from loralet.runs.run import HYBRID
from loralet.tasks.classes import ClassScores, Confusion

NAMED = 4
"""Maximum number of classes named in the title."""
FEW_ROWS = 30
"""Scores of a class with fewer rows are called uncertain: the 95 % interval of a recall of 90 % is 18 points wide or
wider (Wilson)."""


@dataclass(frozen=True)
class Facts:
    """Input of the sentences; see :class:`loralet.report.run.content.RunPage`."""

    record: Record
    shipped: RunResult
    models: tuple[Model, ...]
    measured: Measured
    rows: tuple[ModelRow, ...]
    classes: tuple[ClassScores, ...]
    confusions: tuple[Confusion, ...]

    @property
    def classifier(self) -> ModelRow:
        """The row of the classifier."""
        return next(row for row in self.rows if row.shipped)


def title(facts: Facts) -> str:
    """What is classified: the name of the data, and the classes."""
    data = facts.record.results.data
    path = Path(data.source)
    name = path.name if path.name and (path.exists() or path.is_absolute() or path.suffix) else data.source
    labels = list(data.labels)
    if len(labels) <= NAMED:
        return f"Classifier for {name}: {listed(labels)}"
    return f"Classifier for {name}: {len(labels)} classes ({', '.join(labels[: NAMED - 1])}, …)"


def described(facts: Facts) -> str:
    """The classifier, such as ``LoRA (rank 16, alpha 32) on tiny-en, combined with a linear model on words``."""
    run = facts.shipped
    if run.role == HYBRID and run.members:
        first = run.members[0]
        run = next((other for other in facts.record.results.runs if other.id == first), run)
    name = {"full": "full fine-tuning", "linear-probe": "a linear probe"}.get(run.role, run.role)
    if run.role == "lora" and run.adapter:
        name = f"{METHOD_NAMES[run.adapter.method]} (rank {run.adapter.rank}, alpha {run.adapter.alpha:g})"
    model = next((model.label for model in facts.models if run.model in model.names), "")
    text = f"{name} on {model}" if model else name
    weight = facts.shipped.encoder_weight
    if weight is None:
        return text
    return f"{text}, combined with a linear model on words (weights {weight:.2f} and {1 - weight:.2f})"


def answer(facts: Facts) -> tuple[str, ...]:
    """The accuracy of the classifier, its comparison with simple models, and its weakest class."""
    record = facts.record
    missing = [] if record.results.finished else [f"{unfinished_text(record.folder, record.results)}."]
    return (*missing, _accuracy(facts), *_comparison(facts), *_weakest(facts))


def _accuracy(facts: Facts) -> str:
    own, measured = facts.classifier, facts.measured
    details = [f"95{NO_BREAK}% interval {interval_text(own.low, own.high)}"] if own.low is not None else []
    details += [f"macro F1 {percent(own.macro_f1)}"] if own.macro_f1 is not None else []
    right = f"It classifies {percent(own.accuracy)} of {measured.text} correctly"
    right += f" ({'; '.join(details)})" if details else ""
    return f"The classifier is {described(facts)}. {right}.{_origin(facts)}"


def _origin(facts: Facts) -> str:
    """Where the rows come from, if they are not test rows."""
    measured = facts.measured
    if measured.split == "test":
        reads = facts.record.results.test_reads
        return " The test rows were used neither for training nor for any choice." if reads <= 1 else ""
    if measured.folds:
        return (
            f" Each of these training rows was classified by one of {measured.folds} models that were trained without "
            "it; the classifier itself is trained on all of them."
        )
    return " There is no test split; these rows also selected the state of the training."


def interval_text(low: float | None, high: float | None) -> str:
    """``96.2–97.9 %``; empty without an interval."""
    return "" if low is None or high is None else f"{100 * low:.1f}–{percent(high)}"


def _comparison(facts: Facts) -> list[str]:
    parts: list[str] = []
    linear = strongest_linear([row for row in facts.rows if not row.shipped])
    if linear is not None:
        parts.append(
            f"The {'best ' if _linear_models(facts.rows) > 1 else ''}linear model on words ({linear.name}) classifies "
            f"{percent(linear.accuracy)} of the same rows correctly{_versus(facts.classifier, linear)}."
        )
    majority = next((row for row in facts.rows if row.role == "majority"), None)
    if majority is not None:
        parts.append(f"Always predicting the most frequent class is correct for {percent(majority.accuracy)}.")
    return [" ".join(parts)] if parts else []


def _linear_models(rows: Sequence[ModelRow]) -> int:
    return sum(strongest_linear([row]) is not None for row in rows)


def _versus(own: ModelRow, other: ModelRow) -> str:
    """The comparison of the classifier with another model: by the paired test, or by the intervals."""
    found = other.versus
    if found is not None:
        figures = (
            f"95{NO_BREAK}% interval {signed(100 * found.low)} to {signed(100 * found.high)}; paired, {found.method}, "
            f"{p_value(found.p_holm)}"
        )
        if found.distinguishable:
            side = "better" if found.difference > 0 else "worse"
            return f"; the classifier is {side} by {points(abs(found.difference))[1:]} ({figures})"
        return f"; the difference of the classifier, {points(found.difference)}, is not significant ({figures})"
    if own.low is None or own.high is None or other.low is None or other.high is None:
        return ""
    overlap = own.low <= other.high and other.low <= own.high
    verdict = "overlap, so no difference is shown" if overlap else "do not overlap"
    return f"; the intervals of both {verdict}"


def _weakest(facts: Facts) -> list[str]:
    """The class with the lowest F1, in words, and what its rows are mistaken for."""
    known = [scores for scores in facts.classes if scores.f1 is not None and scores.support]
    if len(known) < 2:
        return []
    weakest = min(known, key=lambda scores: scores.f1 or 0.0)
    if weakest.f1 == 1.0:
        return ["No row of any class is classified wrongly."]
    text = f"The weakest class is {weakest.label}: "
    text += f"{percent(weakest.recall or 0.0)} of its {plural(weakest.support, 'row')} are recognised (recall)"
    if weakest.precision is None:
        return [f"{text}, and no row is predicted as {weakest.label}."]
    text += f", and {percent(weakest.precision)} of the rows predicted as {weakest.label} are right (precision)"
    return [f"{text}.{_confused(facts, weakest.label)}"]


def _confused(facts: Facts, label: str) -> str:
    both = [c for c in facts.confusions if label in (c.label, c.predicted)]
    if not both:
        return ""
    first = both[0]
    return f" Most often, {first.label} is predicted as {first.predicted} ({plural(first.rows, 'row')})."


def limitations(facts: Facts) -> tuple[str, ...]:
    """What the figures do not show; only what applies to this run."""
    return (
        *_about_rows(facts),
        *_about_training(facts),
        *_about_classes(facts),
        *_about_comparisons(facts),
        *_about_texts(facts),
    )


def _about_rows(facts: Facts) -> list[str]:
    measured, results = facts.measured, facts.record.results
    found: list[str] = []
    if measured.split == "test":
        if results.test_reads > 1:
            found.append(
                f"The test split was read {results.test_reads} times. Choices made after the first read may depend on "
                "test rows."
            )
        return found
    chosen = ["the state of the training"] if not measured.folds else []
    chosen += ["the weight of the linear model"] if facts.shipped.encoder_weight is not None else []
    chosen += ["the temperature"] if facts.shipped.calibration and facts.shipped.calibration.fitted else []
    if chosen:
        found.append(
            f"{capitalised(listed(chosen))} {'were' if len(chosen) > 1 else 'was'} chosen on the same "
            f"{measured.split} rows, so the figures are slightly optimistic. A test split avoids this: a folder with "
            "train and test files."
        )
    if measured.folds:
        share = f"{measured.folds - 1} of {measured.folds}"
        found.append(
            f"Out-of-fold figures are those of models trained on {share} folds. The classifier is trained on all rows "
            "and tends to be slightly better."
        )
    return found


def _about_training(facts: Facts) -> list[str]:
    results = facts.record.results
    study = f" (loralet study {shlex.quote(results.data.source)} --seeds 0 1 2 measures it)"
    text = (
        "The interval covers the sampling of rows, not the variation between trainings, which one training does not "
        f"show{study if results.kind == 'train' else ''}."
    )
    ended = [] if facts.shipped.status == "finished" else [f"The training ended as {facts.shipped.status}."]
    return [text, *ended]


def _about_classes(facts: Facts) -> list[str]:
    few = [scores.label for scores in facts.classes if scores.support < FEW_ROWS]
    if not few:
        return []
    many = "all classes" if len(few) == len(facts.classes) else f"{len(few)} of {len(facts.classes)} classes"
    named = listed(few) if len(few) <= NAMED and len(few) < len(facts.classes) else many
    return [f"The scores of {named} are uncertain: fewer than {FEW_ROWS} of the measured rows per class."]


def _about_comparisons(facts: Facts) -> list[str]:
    methods = sorted({row.versus.method for row in facts.rows if row.versus})
    if not methods:
        return []
    return [
        f"The other models are compared with the classifier on the same rows ({listed(methods)}, Holm-corrected, level "
        f"{level_text()}). ≈ means that no difference is shown, not that there is none."
    ]


def _about_texts(facts: Facts) -> list[str]:
    data = facts.record.results.data
    return [
        f"The encoder reads the first {own.max_length} tokens of a text; {plural(own.truncated, 'training text')} "
        f"({percent(own.truncated / data.train_rows)}) are longer."
        for own in data.lengths
        if own.truncated
    ]
