"""Predictions as a table, JSON lines or CSV, or as labels only."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from loralet.inference.predictions import Prediction
from loralet.terminal import terminal, visible

SHOWN = 100
"""Number of characters of a text shown in the table."""
MISSING = "–"


@dataclass(frozen=True)
class Form:
    """What is written for each prediction.

    Args:
        labels: label names, in the order of the probabilities.
        columns: the columns of the input table, by the name they are written under; empty: only the text.
        top: number of probabilities, the largest first; None: those of all labels, in their order.
        labels_only: write only the predicted label.
    """

    labels: Sequence[str]
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    top: int | None = None
    labels_only: bool = False

    def shown(self, prediction: Prediction) -> list[tuple[str, float]]:
        """The labels of a prediction with their probabilities; empty for an empty text."""
        pairs = list(zip(self.labels, prediction.probabilities or (), strict=False))
        return pairs if self.top is None else sorted(pairs, key=lambda pair: -pair[1])[: self.top]

    def own(self, row: int, prediction: Prediction) -> dict[str, object]:
        """What the input says about a row, from 0."""
        return {name: values[row] for name, values in self.columns.items()} or {"text": prediction.text}


Write = Callable[[Iterable[Prediction], Form, TextIO], None]
"""Function that writes predictions."""


def output_names(names: Iterable[str], labels: Sequence[str]) -> dict[str, str]:
    """The names under which the columns of an input table are written.

    A name that a prediction also has, such as ``label``, gets the prefix ``input_``.

    Args:
        names: names of the columns.
        labels: label names of the classifier.
    """
    given = list(names)
    numbers = range(1, len(labels) + 1)
    taken = {"label", "probabilities", *(f"probability_{label}" for label in labels)}
    taken |= {f"{name}_{i}" for name in ("top", "probability") for i in numbers}
    written: dict[str, str] = {}
    for name in given:
        new = name
        while new in taken or (new != name and new in given):
            new = f"input_{new}"
        written[name] = new
    return written


def write_table(predictions: Iterable[Prediction], form: Form, out: TextIO) -> None:
    """Write a table of predicted label, its probability, next labels if requested, and the beginning of each text."""
    if form.labels_only:
        for p in predictions:
            out.write(f"{visible(' '.join((p.label or '').split()))}\n")
        return
    several = form.top is not None and form.top > 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("label", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    if several:
        table.add_column("most probable")
    table.add_column("text")
    for p in predictions:
        text = p.text if len(p.text) <= SHOWN else p.text[: SHOWN - 1] + "…"
        confidence = MISSING if p.confidence is None else f"{p.confidence:.3f}"
        top = [Text(", ".join(f"{label} {share:.3f}" for label, share in form.shown(p)))] if several else []
        table.add_row(Text(MISSING if p.label is None else p.label), confidence, *top, Text(text))
    terminal(file=out, highlight=False).print(table)


def write_jsonl(predictions: Iterable[Prediction], form: Form, out: TextIO) -> None:
    """Write one JSON object per line: text or columns of the table, predicted label, probability of each label.

    Label and probabilities of an empty text are null, as is the label of a text that has none.
    """
    for i, p in enumerate(predictions):
        row: dict[str, object] = {"label": p.label}
        if not form.labels_only:
            row = form.own(i, p) | row | {"probabilities": dict(form.shown(p)) or None}
        out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def write_csv(predictions: Iterable[Prediction], form: Form, out: TextIO) -> None:
    """Write CSV with a header row: text or columns of the table, predicted label, probability of each label.

    With a number of labels, ``top_1``, ``probability_1`` and so on replace the probabilities of all labels. The cells
    of an empty text are empty.
    """
    writer = csv.writer(out)
    rows = iter(predictions)
    first = list(_some(rows))  # fails before the header is written if there is no prediction
    writer.writerow(_header(form))
    for i, p in enumerate(chain(first, rows)):
        label = "" if p.label is None else p.label
        if form.labels_only:
            writer.writerow([label])
            continue
        own = ["" if value is None else _cell(value) for value in form.own(i, p).values()]
        writer.writerow([*own, label, *_probabilities(form, p)])


def _some(rows: Iterator[Prediction]) -> Iterator[Prediction]:
    """The first prediction, if there is one."""
    for row in rows:
        yield row
        return


def _header(form: Form) -> list[str]:
    if form.labels_only:
        return ["label"]
    columns = list(form.columns) or ["text"]
    if form.top is None:
        return [*columns, "label", *(f"probability_{label}" for label in form.labels)]
    places = range(1, min(form.top, len(form.labels)) + 1)
    return [*columns, "label", *(name for i in places for name in (f"top_{i}", f"probability_{i}"))]


def _probabilities(form: Form, prediction: Prediction) -> list[object]:
    width = len(form.labels) if form.top is None else 2 * min(form.top, len(form.labels))
    if prediction.probabilities is None:
        return [""] * width
    shown = form.shown(prediction)
    return [share for _, share in shown] if form.top is None else list(chain.from_iterable(shown))


def _cell(value: object) -> object:
    """A cell of CSV: nested values of JSON as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (dict, list, bool)) else value


WRITERS: dict[str, Write] = {"table": write_table, "jsonl": write_jsonl, "csv": write_csv}
"""Writers by format name."""
