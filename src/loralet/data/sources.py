"""A data set: from a file, a folder or a hub id to splits with numbered labels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loralet.data.files import SUFFIXES, Columns, Table, listed_rows, read_table
from loralet.errors import DataError
from loralet.hub import client as hub
from loralet.hub.bundled import bundled

SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")
NUMBER = re.compile(r"0|-?[1-9]\d*")
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Split:
    """Texts with numbered labels; ``labels`` are int64 indices into the data set's label names."""

    source: str
    texts: pa.ChunkedArray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Split:
        return replace(self, texts=self.texts.take(pa.array(rows)), labels=self.labels[rows])


class HeldOut:
    """The test split behind a counter: whoever scores on it says so by reading it."""

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
        source: what the user named.
        labels: label names, in label order.
        train: training rows.
        validation: the data's own validation split, or None.
        test: the test split, counted, or None.
        fingerprint: hash of all texts and labels.
        notes: what the user should know about the data (rows left out, overlap), in words.
    """

    source: str
    labels: tuple[str, ...]
    train: Split
    validation: Split | None
    test: HeldOut | None
    fingerprint: str
    notes: tuple[str, ...]


def load_dataset(source: str, columns: Columns, label_names: Sequence[str] = (), drop_overlap: bool = False) -> Dataset:
    """Load a data set.

    Args:
        source: a file (all of it is training data), a folder with train/validation/test files, or a hub id (``ag_news`` is fancyzhx/ag_news).
        columns: which columns hold what.
        label_names: names for the labels, in label order; the data's own when empty.
        drop_overlap: remove training texts that also stand in the test split or in a validation split of the data's own.

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also one class only, unknown labels in another split, names that do not match.
        HubError: a hub id that is neither reachable nor cached.
    """
    files = find_files(source)
    if "train" not in files:
        raise DataError(
            f"{source}: there is no training file; found {', '.join(str(path) for paths in files.values() for path in paths)}"
        )
    tables = {name: [read_table(path, columns) for path in paths] for name, paths in files.items()}
    notes = [
        f"{t.source}: {listed_rows(t.left_out)} with an empty text left out"
        for parts in tables.values()
        for t in parts
        if t.left_out
    ]
    values, names = _label_set(tables["train"], label_names)
    splits = {
        name: _joined([Split(t.source, t.texts, _numbered(t, values)) for t in parts]) for name, parts in tables.items()
    }
    train = splits["train"]
    for other in (splits[name] for name in ("test", "validation") if name in splits):
        shared = pc.is_in(train.texts, value_set=other.texts.unique())
        count = int(pc.sum(shared).as_py() or 0)
        if count == len(train) and drop_overlap:
            raise DataError(
                f"{train.source}: every row also stands in {other.source}, so none is left for training; give other rows"
            )
        if count and drop_overlap:
            train = train.take(np.flatnonzero(~shared.to_numpy()))
            notes.append(f"{train.source}: {count} rows that also stand in {other.source} left out of training")
        elif count:
            notes.append(
                f"{train.source}: {count} rows also stand in {other.source}; --drop-overlap leaves them out of training"
            )
    if len(np.unique(train.labels)) < 2:
        raise DataError(
            f"{train.source}: only one class ({names[train.labels[0]]!r}); a classifier needs rows of at least two"
        )
    validation, test = splits.get("validation"), splits.get("test")
    fingerprint = fingerprint_splits([train, *(s for s in (validation, test) if s)])
    return Dataset(source, names, train, validation, HeldOut(test) if test else None, fingerprint, tuple(notes))


def find_files(source: str) -> dict[str, list[Path]]:
    """The files of each split, by ``train``, ``validation`` and ``test``.

    Raises:
        DataError: nothing there, two formats or names for one split, or a part of a split that is missing.
        HubError: a hub id that is neither reachable nor cached.
    """
    path = bundled(source) or Path(source)
    if path.is_file():
        return {"train": [path]}
    if not path.is_dir():
        if not hub.is_hub_id(source) or path.suffix.lower() in SUFFIXES:
            raise DataError(f"{source}: no such file or folder")
        path = hub.fetch(source, _wanted, kind="dataset")
    found: dict[str, list[Path]] = {}
    for file in sorted(
        p for p in path.rglob("*") if not any(part.startswith(".") for part in p.relative_to(path).parts)
    ):
        split = _split_of(file.name)
        if split:
            found.setdefault(split, []).append(file)
    for split, files in found.items():
        _check_parts(source, split, [file.relative_to(path) for file in files])
    if not found:
        raise DataError(f"{source}: no train, validation or test file ({', '.join(SUFFIXES)}) in this folder")
    return found


def _check_parts(source: str, split: str, files: list[Path]) -> None:
    """One file, or all the parts of one ``-00000-of-00002`` set."""
    parts = [SHARD.fullmatch(file.stem) for file in files]
    sets = {(file.parent, file.suffix, part and (part[1], part[3])) for file, part in zip(files, parts, strict=True)}
    if len(sets) > 1 or (len(files) > 1 and not parts[0]):
        raise DataError(f"{source}: several sets of {split} files ({', '.join(map(str, files))}); keep one")
    if parts[0] and len(files) != int(parts[0][3]):
        raise DataError(
            f"{source}: only {len(files)} of {int(parts[0][3])} {split} files ({', '.join(map(str, files))}); add the rest"
        )


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(".parquet") and _split_of(name.split("/")[-1])]


def _split_of(name: str) -> str | None:
    stem, dot, suffix = name.rpartition(".")
    if f"{dot}{suffix.lower()}" not in SUFFIXES:
        return None
    for split, spellings in SPLIT_NAMES.items():
        if re.fullmatch(rf"({'|'.join(spellings)})(-\d+-of-\d+)?", stem.lower()):
            return split
    return None


def _joined(parts: list[Split]) -> Split:
    """The parts of a split as one."""
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    texts = pa.chunked_array([chunk for part in parts for chunk in part.texts.chunks])
    return Split(f"{parts[0].source}{more}", texts, np.concatenate([part.labels for part in parts]))


def _label_set(parts: Sequence[Table], given: Sequence[str]) -> tuple[list[int | str], tuple[str, ...]]:
    """Label values in order (integers by value, strings by alphabet, or as the file's own names say) and the names they go by."""
    train = parts[0]
    assert train.labels is not None
    found = {value for table in parts if table.labels is not None for value in table.labels.unique().to_pylist()}
    whole = all(isinstance(value, int) for value in found)
    present: list[int | str] = sorted(found if whole else set(map(str, found)))
    if train.names and whole:
        values: list[int | str] = list(range(len(train.names)))
        names = train.names
    else:
        values, names = present, tuple(map(str, present))
    if not given:
        return values, names
    if not whole and set(given) == set(present):
        return list(given), tuple(given)
    if len(given) != len(values):
        raise DataError(
            f"{train.source}: --label-names gives {len(given)} names ({', '.join(given)}), the data has {len(values)} labels ({', '.join(names)}); "
            "give one for each"
        )
    require_no_exchange(train.source, names, given)
    return values, tuple(given)


def require_no_exchange(source: str, names: Sequence[str], given: Sequence[str]) -> None:
    """Check that no label is renamed to what another label is called already: answers would be turned round without a word.

    Raises:
        DataError: one is.
    """
    for old, new in zip(names, given, strict=True):
        if new != old and new in names:
            raise DataError(
                f"{source}: {new!r} is given as the name of the label {old!r}, but another label is called so; "
                f"the labels, in order, are {', '.join(names)}"
            )


def _numbered(table: Table, values: list[int | str]) -> np.ndarray:
    assert table.labels is not None
    wanted = pa.array(values)
    labels = table.labels
    if labels.type != wanted.type:
        labels, wanted = labels.cast(pa.string()), wanted.cast(pa.string())
    numbers = pc.index_in(labels, value_set=wanted)
    if numbers.null_count:
        unknown = pc.is_null(numbers).combine_chunks()
        rows = table.rows.filter(unknown).to_pylist()
        strange = ", ".join(repr(v) for v in labels.filter(unknown).unique().to_pylist()[:5])
        raise DataError(
            f"{table.source}: {listed_rows(rows)} with an unknown label ({strange}); known from training: {', '.join(map(repr, values))}"
        )
    return np.asarray(numbers.to_numpy(), np.int64)


def load_labelled(source: str, columns: Columns, names: Sequence[str]) -> Split:
    """Rows to measure a trained classifier on: a file, or the test file of a folder or hub data set.

    Args:
        source: a file, a folder or a hub id.
        columns: which columns hold what.
        names: the classifier's labels. A label of the data is one of these names; or, where none of them is and the names are no numbers
            themselves, as an integer a place among them (among the file's own names, where it carries these in an order of its own).

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also no test file, or a label that the classifier does not know.
    """
    files = find_files(source)
    paths = files.get("test") or (files["train"] if Path(source).is_file() else [])
    if not paths:
        raise DataError(
            f"{source}: there is no test file; found {', '.join(str(p) for ps in files.values() for p in ps)}"
        )
    tables = [read_table(path, columns) for path in paths]
    found = {value for table in tables if table.labels is not None for value in table.labels.unique().to_pylist()}
    values: list[int | str] = list(range(len(names)))
    named = any(str(value) in names for value in found) or all(NUMBER.fullmatch(name) for name in names)
    if named or not all(isinstance(value, int) for value in found):
        values = list(names)
    elif sorted(tables[0].names) == sorted(names):
        values = [tables[0].names.index(name) for name in names]
    return _joined([Split(table.source, table.texts, _numbered(table, values)) for table in tables])


def hash_texts(texts: pa.ChunkedArray) -> hashlib._Hash:
    """A running SHA-256 over the texts and where each ends, whatever the chunks they come in."""
    lengths, content = hashlib.sha256(), hashlib.sha256()
    for chunk in texts.chunks:
        if len(chunk):
            start = chunk.slice(0, 1).buffers()[1]
            offsets = np.frombuffer(start, np.int32, len(chunk) + 1, offset=chunk.offset * 4)
            lengths.update(np.diff(offsets).tobytes())
            content.update(memoryview(chunk.buffers()[2])[offsets[0] : offsets[-1]] if offsets[-1] else b"")
    return hashlib.sha256(lengths.digest() + content.digest())


def fingerprint_splits(splits: Sequence[Split]) -> str:
    """Hash of all texts and labels."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(hash_texts(split.texts).digest())
        digest.update(split.labels.tobytes())
    return digest.hexdigest()
