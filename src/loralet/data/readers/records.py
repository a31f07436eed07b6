"""What every reader returns: named columns, with the place of each record in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Union

if TYPE_CHECKING:
    import pyarrow as pa

Unit = Literal["line", "row"]
"""What the numbers of records count: the lines of a text file or the rows of a table, both from 1."""
Quoting = Literal["auto", "standard", "none"]
Column = Union[Sequence[Any], "pa.ChunkedArray"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Formats by file extension. The extension may be followed by that of a compression."""
COMPRESSED = (".gz", ".bz2", ".xz")
KNOWN = ".csv, .tsv, .jsonl, .json, .parquet and .arrow, also with .gz"
"""The extensions as messages list them."""


@dataclass(frozen=True)
class Delimited:
    """How a delimited text file is written.

    Args:
        header: column names of a file without a header row; empty if the first record is the header.
        separator: character between columns; empty to detect it.
        quoting: ``standard``: a field in quotes may contain separators, line breaks and doubled quotes; ``none``: a
            quote is an ordinary character; ``auto``: detect it.
        expected: names that the header is likely to contain, in lower case.
    """

    header: tuple[str, ...] = ()
    separator: str = ""
    quoting: Quoting = "auto"
    expected: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Records:
    """The records of a table, all columns.

    Args:
        source: the file, for messages.
        names: column names; they may repeat.
        columns: one sequence of values per name. Text that is not UTF-8 has its bytes as lone surrogates.
        rows: number of each record in the file.
        unit: what these numbers count.
        typed: whether values have types; false for CSV and TSV, whose values are all text.
        notes: what a user should know about how the file was read.
        label_names: names of the integer labels of a column, by column, if the file stores them.
    """

    source: str
    names: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: Sequence[int]
    unit: Unit
    typed: bool
    notes: tuple[str, ...] = ()
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def column(self, name: str) -> Column:
        """The first column of this name."""
        return self.columns[self.names.index(name)]


def format_of(name: str) -> str:
    """The format by the extension of a file name; empty if it is none of a table."""
    path = PurePath(name.lower())
    if path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return FORMATS.get(path.suffix, "")


def stem_of(name: str) -> str:
    """A file name without the extensions of format and compression."""
    path = PurePath(name)
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    return path.stem
