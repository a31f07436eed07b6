"""Load a data set from a file, a folder or a hub id into splits with encoded labels."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loralet.data.files import Columns, Table, read_table
from loralet.data.readers.records import KNOWN, format_of, stem_of
from loralet.errors import SHOWN_ROWS, DataError, listed_rows
from loralet.hub import client as hub
from loralet.hub.bundled import bundled
from loralet.hub.names import is_hub_id
from loralet.tasks.base import Task
from loralet.tasks.registry import TASKS

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Origin:
    """Where each row of a split comes from.

    Args:
        files: the files.
        file: index of each row's file.
        rows: number of each row in its file, from 1.
        unit: what these numbers count: ``line`` or ``row``.
    """

    files: tuple[str, ...]
    file: np.ndarray
    rows: np.ndarray
    unit: str

    def take(self, rows: np.ndarray) -> Origin:
        return replace(self, file=self.file[rows], rows=self.rows[rows])

    def listed(self, rows: Sequence[int], shown: int = SHOWN_ROWS) -> str:
        """Rows by their numbers in the file: ``line 7``, ``3 lines (7, 9, 12)``; with the file if there are several."""
        if len(self.files) == 1:
            return listed_rows([int(self.rows[row]) for row in rows], self.unit, shown)
        places = [f"{Path(self.files[self.file[row]]).name} {self.unit} {self.rows[row]}" for row in rows[:shown]]
        listed = ", ".join(places) + (", ..." if len(rows) > shown else "")
        return listed if len(rows) == 1 else f"{len(rows):,} rows ({listed})"


@dataclass(frozen=True)
class Split:
    """Texts with their targets.

    Args:
        source: where the texts come from, for messages.
        texts: one string per row.
        targets: the labels as the task encodes them, one row per text.
        seconds: the second text of each row, for pairs; None for single texts.
        weights: weight of each row in the loss of training; None: all 1.
        folds: fold of each row in a cross-validation, from 0; None: no folds.
        origin: the place of each row in its file; None: rows count from 1.
        notes: how the rows were read, if they are read alone.
    """

    source: str
    texts: pa.ChunkedArray
    targets: np.ndarray
    seconds: pa.ChunkedArray | None = None
    weights: np.ndarray | None = None
    folds: np.ndarray | None = None
    origin: Origin | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def places(self) -> Origin:
        """The place of each row."""
        count = len(self)
        return self.origin or Origin((self.source,), np.zeros(count, np.int32), np.arange(1, count + 1), "row")

    def take(self, rows: np.ndarray) -> Split:
        seconds = None if self.seconds is None else self.seconds.take(pa.array(rows))
        weights = None if self.weights is None else self.weights[rows]
        folds = None if self.folds is None else self.folds[rows]
        origin = None if self.origin is None else self.origin.take(rows)
        texts = self.texts.take(pa.array(rows))
        return Split(self.source, texts, self.targets[rows], seconds, weights, folds, origin, self.notes)


class HeldOut:
    """The test split, with a counter of how often it is read."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self.reads = 0

    def __len__(self) -> int:
        return len(self._split)

    def read(self) -> Split:
        self.reads += 1
        return self._split


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    Args:
        source: the file, folder or hub id as given by the user.
        task: the task, which defines the labels.
        train: training rows.
        validation: the validation split that comes with the data, or None.
        test: the test split with its read counter, or None.
        fingerprint: hash of all texts and targets.
        notes: messages about the data for the user: the columns, how files were read, rows left out on request.
        findings: what is likely wrong with the data: empty texts, texts in two splits, files that are not used.
        text_columns, label_column: names of the columns that were read; empty without a file.
        test_fingerprint: hash of the texts and label names of the test split; empty without one.
    """

    source: str
    task: Task
    train: Split
    validation: Split | None
    test: HeldOut | None
    fingerprint: str
    notes: tuple[str, ...]
    findings: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    test_fingerprint: str = ""


def load_dataset(
    source: str,
    columns: Columns,
    label_names: Sequence[str] = (),
    drop_overlap: bool = False,
    kind: str = "single-label",
) -> Dataset:
    """Load a data set.

    Args:
        source: a file (all of it is training data), a folder with train/validation/test files, or a hub id (``ag_news``
            is fancyzhx/ag_news).
        columns: the text and label columns.
        label_names: names of the labels, in label order; taken from the data when empty.
        drop_overlap: remove training texts that also occur in the test split or in a validation split that comes with
            the data.
        kind: name of the task (:data:`loralet.tasks.registry.TASKS`).

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also a single class, unknown labels in another split, or
            label names that do not match.
        HubError: a hub id that is neither reachable nor cached.
    """
    files = find_files(source)
    if "train" not in files:
        found = ", ".join(str(path) for paths in files.values() for path in paths)
        raise DataError(f"{source}: no training file; found {found}")
    tables = {name: [read_table(path, columns) for path in paths] for name, paths in files.items()}
    task = TASKS[kind].of([table.raw_labels for table in tables["train"]], label_names)
    splits = {
        name: _joined(parts, [task.encode(table.raw_labels) for table in parts]) for name, parts in tables.items()
    }
    train = splits["train"]
    notes, findings = _reading_notes(tables), [*_empty_texts(tables), *_unused(source, files)]
    for other in (splits[name] for name in ("test", "validation") if name in splits):
        shared = pc.is_in(train.texts, value_set=other.texts.unique())
        count = int(pc.sum(shared).as_py() or 0)
        if count == len(train) and drop_overlap:
            raise DataError(
                f"{train.source}: every row is also in {other.source}, so no training rows remain; use other rows"
            )
        if count and drop_overlap:
            train = train.take(np.flatnonzero(~shared.to_numpy()))
            notes.append(f"{train.source}: left out {count} rows that are also in {other.source}")
        elif count:
            findings.append(
                f"{train.source}: {count} rows are also in {other.source}; use --drop-overlap to leave them out"
            )
    task.require_trainable(train.source, train.targets)
    validation, test = splits.get("validation"), splits.get("test")
    first = tables["train"][0]
    return Dataset(
        source,
        task,
        train,
        validation,
        HeldOut(test) if test else None,
        fingerprint_splits([train, *(s for s in (validation, test) if s)]),
        tuple(notes),
        tuple(findings),
        first.text_columns,
        first.label_column,
        fingerprint_rows(test, task.labels) if test else "",
    )


def _reading_notes(tables: Mapping[str, Sequence[Table]]) -> list[str]:
    """The columns that were read, and how the files are written where that is not obvious."""
    notes: dict[str, None] = {}
    for table in (table for parts in tables.values() for table in parts):
        text = " + ".join(map(repr, table.text_columns))
        notes[f"text from column {text}, labels from column {table.label_column!r}"] = None
    for table in (table for parts in tables.values() for table in parts):
        for note in table.notes:
            notes[f"{table.source}: {note}"] = None
    return list(notes)


def _empty_texts(tables: Mapping[str, Sequence[Table]]) -> Iterator[str]:
    """The rows that are left out."""
    for table in (table for parts in tables.values() for table in parts if table.left_out):
        yield f"{table.source}: left out {listed_rows(table.left_out, table.unit)} with an empty text"


def _unused(source: str, files: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """Tables of a folder that are in no split."""
    folder = bundled(source) or Path(source)
    if not folder.is_dir():
        return
    used = {path for paths in files.values() for path in paths}
    others = [path.relative_to(folder) for path in _visible(folder) if format_of(path.name) and path not in used]
    if others:
        names = ", ".join(map(str, others[:SHOWN_ROWS])) + (", ..." if len(others) > SHOWN_ROWS else "")
        yield f"{source}: not used, as the names are of no split: {names}"


def _visible(folder: Path) -> Iterator[Path]:
    """The files of a folder in their order, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def find_files(source: str) -> dict[str, list[Path]]:
    """The files of each split, with the keys ``train``, ``validation`` and ``test``.

    Raises:
        DataError: no file, several formats or names for one split, or a missing part of a split.
        HubError: a hub id that is neither reachable nor cached.
    """
    path = bundled(source) or Path(source)
    if path.is_file():
        return {"train": [path]}
    if not path.is_dir():
        if not is_hub_id(source) or format_of(source):
            raise DataError(f"{source}: no such file or folder")
        path = hub.fetch(source, _wanted, kind="dataset")
    found: dict[str, list[Path]] = {}
    for file in _visible(path):
        split = _split_of(file.name)
        if split:
            found.setdefault(split, []).append(file)
    for split, files in found.items():
        _check_parts(source, split, [file.relative_to(path) for file in files])
    if not found:
        raise DataError(f"{source}: no train, validation or test file ({KNOWN}) in this folder")
    return found


def _check_parts(source: str, split: str, files: list[Path]) -> None:
    """Require one file, or all parts of one ``-00000-of-00002`` set."""
    parts = [SHARD.fullmatch(stem_of(file.name)) for file in files]
    sets = {
        (file.parent, format_of(file.name), part and (part[1], part[3]))
        for file, part in zip(files, parts, strict=True)
    }
    if len(sets) > 1 or (len(files) > 1 and not parts[0]):
        raise DataError(f"{source}: several sets of {split} files ({', '.join(map(str, files))}); keep one")
    if parts[0] and len(files) != int(parts[0][3]):
        found = ", ".join(map(str, files))
        raise DataError(f"{source}: only {len(files)} of {int(parts[0][3])} {split} files ({found}); add the rest")


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(".parquet") and _split_of(name.split("/")[-1])]


def _split_of(name: str) -> str | None:
    if not format_of(name):
        return None
    for split, spellings in SPLIT_NAMES.items():
        if re.fullmatch(rf"({'|'.join(spellings)})(-\d+-of-\d+)?", stem_of(name).lower()):
            return split
    return None


def _joined(parts: Sequence[Table], targets: Sequence[np.ndarray]) -> Split:
    """The split of one or more files."""
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    texts = pa.chunked_array([chunk for part in parts for chunk in part.texts.chunks], pa.string())
    file = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    rows = np.concatenate([part.rows.to_numpy() for part in parts])
    origin = Origin(tuple(part.source for part in parts), file, rows, parts[0].unit)
    return Split(f"{parts[0].source}{more}", texts, np.concatenate(targets), origin=origin)


def load_labelled(source: str, columns: Columns, task: Task, indices: bool = False) -> Split:
    """Load labelled rows to evaluate a classifier on: a file, or the test file of a folder or hub data set.

    Args:
        source: a file, a folder or a hub id.
        columns: the text and label columns.
        task: the classifier's task, which encodes the labels (:meth:`loralet.tasks.base.Task.encode_other`).
        indices: whether the labels are indices into the task's label names.

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also no test file, or a label unknown to the classifier.
    """
    files = find_files(source)
    paths = files.get("test") or (files["train"] if Path(source).is_file() else [])
    if not paths:
        raise DataError(f"{source}: no test file; found {', '.join(str(p) for ps in files.values() for p in ps)}")
    tables = [read_table(path, columns) for path in paths]
    targets = task.encode_other([table.raw_labels for table in tables], indices)
    parts = {"test": tables}
    return replace(_joined(tables, targets), notes=(*_reading_notes(parts), *_empty_texts(parts)))


def hash_texts(texts: pa.ChunkedArray) -> hashlib._Hash:
    """SHA-256 state over the texts and their lengths. It does not depend on the Arrow chunks."""
    lengths, content = hashlib.sha256(), hashlib.sha256()
    for chunk in texts.chunks:
        if len(chunk):
            start = chunk.slice(0, 1).buffers()[1]
            offsets = np.frombuffer(start, np.int32, len(chunk) + 1, offset=chunk.offset * 4)
            lengths.update(np.diff(offsets).tobytes())
            content.update(memoryview(chunk.buffers()[2])[offsets[0] : offsets[-1]] if offsets[-1] else b"")
    return hashlib.sha256(lengths.digest() + content.digest())


def fingerprint_rows(split: Split, labels: Sequence[str]) -> str:
    """Hash of the texts and the label names of a split, whatever the order of the labels in its data set.

    Args:
        split: rows with class numbers as targets.
        labels: label names by class number.
    """
    digest = hash_texts(split.texts)
    digest.update(json.dumps([labels[number] for number in split.targets.tolist()]).encode())
    return digest.hexdigest()


def fingerprint_splits(splits: Sequence[Split]) -> str:
    """Hash of all texts and labels."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(hash_texts(split.texts).digest())
        if split.seconds is not None:
            digest.update(hash_texts(split.seconds).digest())
        digest.update(split.targets.tobytes())
    return digest.hexdigest()
