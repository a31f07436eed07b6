"""Location and format of texts and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from loralet.config.limits import choice_problems, seed_problems, twice
from loralet.config.shared import ChosenLength, LabelsAreIndices, Quotes, Quoting, Separator, TextColumn

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", "\\t": "\t"}
"""Names of separators that are hard to write on a command line."""
InputFormat = Literal["auto", "csv", "tsv", "jsonl", "lines"]


def separator_problems(separator: str) -> Iterator[str]:
    """Problems of a separator."""
    if separator and separator not in SEPARATORS and (len(separator) != 1 or separator in "\r\n\"'"):
        yield f"separator is {separator!r}: give one character, or one of {', '.join(SEPARATORS)}"


def length_problems(max_length: int | None) -> Iterator[str]:
    """Problems of a maximum text length in tokens."""
    if max_length is not None and max_length < 3:
        yield f"max_length is {max_length}: a text needs at least 3 tokens, two of them special"


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of a table to read."""

    text_column: TextColumn = ""
    label_column: str = ""
    """Label column; detected by common names if empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file without a header row."""
    separator: Separator = ""
    quoting: Quotes = "auto"

    def problems(self) -> Iterator[str]:
        if repeated := twice(self.columns):
            yield f"columns contains duplicates: {repeated}"
        yield from separator_problems(self.separator)
        yield from choice_problems({"quoting": (self.quoting, get_args(Quoting))})


@dataclass(frozen=True)
class LabelledRows:
    """Labelled rows to evaluate a run on."""

    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """Labelled file, or folder with a test file; the run's test split if empty (recorded in the run)."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    labels_are_indices: LabelsAreIndices = False

    def problems(self) -> Iterator[str]:
        yield from self.columns.problems()


@dataclass(frozen=True)
class TextInput:
    """Texts to classify."""

    texts: Annotated[Positional[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """Texts to classify; if none, or if -, those of --file or of standard input."""
    file: str = ""
    """CSV, TSV, JSONL or Parquet with a text column, or a text per line; - is standard input (default)."""
    input_format: InputFormat = "auto"
    """Format of the input; auto: by the extension of --file, else one text per line."""
    text_column: TextColumn = ""
    separator: Separator = ""
    quoting: Quotes = "auto"

    def problems(self) -> Iterator[str]:
        yield from separator_problems(self.separator)


@dataclass(frozen=True)
class DataOptions:
    """How to read and split the data."""

    columns: ColumnOptions = field(default_factory=ColumnOptions)
    label_names: tuple[str, ...] = ()
    """Label names, in label order; the label values if empty."""
    validation_fraction: float = 0.1
    """Fraction of training rows held out if the data has no validation split (at most 5,000 rows)."""
    split_seed: int = 0
    """Seed of the validation split and of the validation sample."""
    drop_overlap: bool = False
    """Drop training rows whose text is also in the test split or the given validation split."""
    max_length: ChosenLength = None
    strict: bool = False
    """Refuse data in which the data check finds something, instead of printing it."""

    def problems(self) -> Iterator[str]:
        yield from self.columns.problems()
        if not 0 < self.validation_fraction < 1:
            yield f"validation_fraction is {self.validation_fraction}: it must be above 0 and below 1"
        yield from length_problems(self.max_length)
        yield from seed_problems("split_seed", self.split_seed)
        if repeated := twice(self.label_names):
            yield f"label_names contains duplicates: {repeated}"
