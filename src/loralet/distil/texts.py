"""The texts of a distillation: read, deduplicated, and split into training and held-out texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from loralet.data.files import Columns, read_table
from loralet.data.readers.content import lines_of, read_bytes
from loralet.data.readers.records import format_of
from loralet.errors import DataError


@dataclass(frozen=True)
class Texts:
    """Texts without labels.

    Args:
        texts: every distinct text once, in the order of the files.
        counts: name of each file, and number of texts read from it.
    """

    texts: pa.ChunkedArray
    counts: tuple[tuple[str, int], ...]

    @property
    def repeated(self) -> int:
        """Number of duplicates left out."""
        return sum(count for _, count in self.counts) - len(self.texts)


def read_texts(files: Sequence[str], text_column: str) -> Texts:
    """Read files of texts. Empty texts are left out.

    Args:
        files: tables (:func:`loralet.data.files.read_table`); a file with another extension has one text per line.
        text_column: text column of the tables; found by its usual names when empty.

    Raises:
        DataError: a file cannot be read or has no text. One message lists all problems.
    """
    columns: list[pa.ChunkedArray] = []
    problems: list[str] = []
    for file in files:
        path = Path(file)
        try:
            table = Columns(text=text_column)
            columns.append(read_table(path, table, labelled=False).texts if format_of(file) else _lines(path))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    counts = tuple((Path(file).name, len(column)) for file, column in zip(files, columns, strict=True))
    different = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).unique()
    return Texts(pa.chunked_array([different]), counts)


def _lines(path: Path) -> pa.ChunkedArray:
    kept = [text for line in lines_of(str(path), read_bytes(path)) if (text := line.strip())]
    if not kept:
        raise DataError(f"{path}: the file has no text")
    return pa.chunked_array([pa.array(kept, pa.string())])


def hold_out(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted row numbers of the training texts and of the held-out texts.

    Args:
        count: number of texts.
        share: share of the texts to hold out, at least two texts.
        seed: seed of the draw.

    Raises:
        DataError: fewer than four texts, or a share that leaves fewer than two to train on.
    """
    size = max(2, round(count * share))
    if count - size < 2:
        raise DataError(f"{count} distinct texts are too few to hold out {size}; add texts, or lower --held-out")
    order = np.random.default_rng([seed, count]).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])
