"""Predictions as a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loralet.inference.predictions import Prediction

Write = Callable[[Iterable[Prediction], Sequence[str], TextIO], None]
"""Function that writes predictions. Its second argument is the label names in the order of the probabilities."""
SHOWN = 100
"""Number of characters of a text shown in the table."""


def write_table(predictions: Iterable[Prediction], labels: Sequence[str], out: TextIO) -> None:
    """Write a table of predicted label, its probability, and the beginning of each text."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("label", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("text")
    for p in predictions:
        text = p.text if len(p.text) <= SHOWN else p.text[: SHOWN - 1] + "…"
        table.add_row(Text(p.label), f"{max(p.probabilities):.3f}", Text(text))
    Console(file=out, highlight=False).print(table)


def write_jsonl(predictions: Iterable[Prediction], labels: Sequence[str], out: TextIO) -> None:
    """Write one JSON object per line: text, predicted label, probability of each label."""
    for p in predictions:
        row = {"text": p.text, "label": p.label, "probabilities": dict(zip(labels, p.probabilities, strict=True))}
        out.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(predictions: Iterable[Prediction], labels: Sequence[str], out: TextIO) -> None:
    """Write CSV with a header row: text, predicted label, probability of each label."""
    writer = csv.writer(out)
    writer.writerow(["text", "label", *(f"probability_{label}" for label in labels)])
    writer.writerows([p.text, p.label, *p.probabilities] for p in predictions)


WRITERS: dict[str, Write] = {"table": write_table, "jsonl": write_jsonl, "csv": write_csv}
"""Writers by format name."""
