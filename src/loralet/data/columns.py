"""Texts and labels passed in Python: lists, arrays, pandas or polars Series, Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from loralet.data.label_values import is_missing, named_labels, type_of
from loralet.data.sources import Dataset, Split, fingerprint_splits
from loralet.errors import InputError, is_utf8, listed_rows
from loralet.tasks.base import Task
from loralet.tasks.single_label import SingleLabel


def text_column(texts: Any, keep_empty: bool = False) -> pa.ChunkedArray:
    """Texts as one Arrow column.

    Args:
        texts: strings: a list, tuple, iterator, numpy array, pandas or polars Series, Arrow or ``datasets`` column, or
            a table of one column.
        keep_empty: accept empty texts, and no texts at all (they can be classified, but not trained on).

    Raises:
        InputError: a single string, a value that is not a string or not UTF-8, no texts, or an empty text. Rows
            count from 1.
    """
    values = _values(texts, "texts")
    if not len(values) and not keep_empty:
        raise InputError("there are no texts; pass at least one")
    strange = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if strange:
        kind = type(values[strange[0]]).__name__
        verb = "contains" if len(strange) == 1 else "contain"
        remedy = "decode" if isinstance(values[strange[0]], bytes) else "drop or fill"
        raise InputError(f"{_rows(strange)} {verb} {kind}, not text; {remedy} them")
    empty = [] if keep_empty else [i for i, value in enumerate(values) if not value.strip()]
    if empty:
        verb = "is" if len(empty) == 1 else "are"
        raise InputError(f"{_rows(empty)} {verb} empty; remove them and their labels")
    _require_utf8(values)
    return pa.chunked_array([pa.array(list(map(str.__str__, values)), pa.string())])


def _rows(indices: Sequence[int]) -> str:
    """Rows by their numbers from 1, which a message says because Python counts from 0."""
    return f"{listed_rows([i + 1 for i in indices])} (counted from 1)"


def _require_utf8(values: Sequence[Any]) -> None:
    """Check texts or labels for lone surrogates, which come from bytes that are not UTF-8.

    Raises:
        InputError: there are some.
    """
    broken = [i for i, value in enumerate(values) if isinstance(value, str) and not is_utf8(value)]
    if broken:
        verb = "is" if len(broken) == 1 else "are"
        raise InputError(
            f"{_rows(broken)} {verb} not UTF-8 text: {values[broken[0]]!a}; decode the bytes with their encoding"
        )


def label_column(labels: Any, rows: int, known: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes, in the type of the labels, and the class number of each row (int64).

    Args:
        labels: strings, integers (also as floats or decimals) or booleans, in any container that texts may have.
        rows: number of texts.
        known: classes of a trained classifier, to which those of the labels are added; None: only those of the labels.

    Raises:
        InputError: another number of labels than texts, a single class, a missing label, labels of mixed types or of
            another type than the known classes, labels with a fractional part, or labels that are not UTF-8.
    """
    values = _values(labels, "labels")
    if len(values) != rows:
        raise InputError(f"there are {rows} texts and {len(values)} labels; every text needs one label")
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iubU":
        values = _label_array(values)
    if values.dtype.kind == "U":
        _require_utf8(values.tolist())
        _require_labels([i for i, value in enumerate(values.tolist()) if not value.strip()])
    if known is not None:
        return _with_known(values, known)
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"there is only one class ({classes.tolist()[0]!r}); a classifier needs at least two")
    return classes, numbers.astype(np.int64)


def _with_known(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The known classes and those of the labels, and the class number of each label."""
    numeric = "iuf"
    if values.dtype.kind != known.dtype.kind and not (values.dtype.kind in numeric and known.dtype.kind in numeric):
        raise InputError(f"the labels are like {values[0]!r}, and the trained classes like {known[0]!r}; use one type")
    if values.dtype.kind == "f" and known.dtype.kind in "iu":
        values = values.astype(known.dtype)  # labels have no fraction
    classes = np.union1d(known, values)
    return classes, np.searchsorted(classes, values).astype(np.int64)


def evaluation_split(given: Any, classes: np.ndarray) -> Split | None:
    """The validation rows given as texts and labels; None if none are given.

    Args:
        given: a pair of texts and labels, or a list with one pair; None: no rows.
        classes: the classes of the classifier.

    Raises:
        InputError: no such pair, a label that is no class, or see :func:`text_column`.
    """
    if given is None:
        return None
    pair = given[0] if isinstance(given, list) and len(given) == 1 else given
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InputError("eval_set: give one pair of texts and labels, eval_set=(X, y)")
    texts = text_column(pair[0])
    found, numbers = label_column(pair[1], len(texts), classes)
    unknown = np.setdiff1d(found, classes).tolist()
    if unknown:
        raise InputError(f"eval_set: {', '.join(map(repr, unknown[:5]))} is no label of the training rows")
    return Split(f"{len(texts):,} texts of eval_set", texts, numbers)


def plain_labels(labels: Any) -> np.ndarray:
    """Labels in any container as an array, for the metrics of scikit-learn."""
    return np.asarray(_values(labels, "labels"))


def _label_array(values: Any) -> np.ndarray:
    """Labels of one type as an array: of objects for integers beyond 64 bits; raises as :func:`label_column`."""
    given = [_plain(value) for value in values]
    _require_labels([i for i, value in enumerate(given) if is_missing(value)])
    kinds = {type_of(value) for value in given}
    if None in kinds:
        strange = next(i for i, value in enumerate(given) if type_of(value) is None)
        kind = (
            values.dtype if isinstance(values, np.ndarray) and values.dtype != object else type(given[strange]).__name__
        )
        raise InputError(
            f"{_rows([strange])}: labels of type {kind} are not supported; give one class per text, as a string or an "
            "integer"
        )
    if len(kinds) > 1 and kinds != {"int", "float"}:
        names = ", ".join(sorted(map(str, kinds)))
        raise InputError(f"the labels have mixed types ({names}); use one type, for example strings")
    if "float" in kinds:
        if not all(np.isfinite(value) and value == round(value) for value in given):
            raise InputError("Unknown label type: continuous numbers; a classifier needs classes: strings or integers")
        return np.array(given, np.float64)
    if kinds == {"int"} and any(not -(2**63) <= value < 2**63 for value in given):
        return np.array(given, object)
    return np.array(given)


def _plain(value: Any) -> Any:
    """A label as a plain Python value: numpy scalars, decimals, and members of enumerations of strings."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    return value.item() if isinstance(value, np.generic) else value


def _require_labels(missing: Sequence[int]) -> None:
    """Raise an InputError if rows have no label; a label of spaces is none, as in files."""
    if missing:
        raise InputError(f"{_rows(missing)} ha{'s' if len(missing) == 1 else 've'} no label")


def weight_column(weights: Any, rows: int) -> np.ndarray | None:
    """Weights of rows as fp64, or None.

    Args:
        weights: one number per row, in any container; None: no weights.
        rows: number of texts.

    Raises:
        InputError: another number of weights than texts, a weight that is not a finite number or is negative, or no
            weight above 0.
    """
    if weights is None:
        return None
    try:
        values = np.asarray(_values(weights, "weights"), np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample_weight: one number per text is expected ({error})") from error
    if values.shape != (rows,):
        raise InputError(f"there are {rows} texts and {len(values)} weights; every text needs one weight")
    strange = np.flatnonzero(~(np.isfinite(values) & (values >= 0))).tolist()
    if strange:
        raise InputError(
            f"sample_weight: {_rows(strange)}, such as {values[strange[0]]}: a weight must be finite and not negative"
        )
    if not values.any():
        raise InputError("sample_weight: all weights are zero; give at least one above 0")
    return values


def memory_dataset(
    texts: pa.ChunkedArray,
    targets: np.ndarray,
    task: Task,
    weights: np.ndarray | None = None,
    validation: Split | None = None,
) -> Dataset:
    """A data set without test rows.

    Args:
        texts: the texts.
        targets: the labels as the task encodes them, one row per text.
        task: the task.
        weights: weight of each row in the loss; None: all 1.
        validation: validation rows; None: they are held out of the training rows.
    """
    train = Split(f"{len(texts):,} texts", texts, targets, weights=weights)
    splits = [train] if validation is None else [train, validation]
    return Dataset("rows given in Python", task, train, validation, None, fingerprint_splits(splits), ())


def task_of(classes: np.ndarray) -> SingleLabel:
    """The task of classes given in Python, with their canonical names."""
    names, kind = named_labels(classes.tolist(), typed=True)
    if len(set(names)) < len(names):  # strings that differ by surrounding spaces
        return SingleLabel(tuple(map(str, classes.tolist())), (), kind)
    return SingleLabel(tuple(map(str, names)), (), kind)


def classes_of(names: Sequence[str], kind: str) -> np.ndarray:
    """Convert the class names of an artifact back to the type of the labels."""
    if kind == "bool":
        return np.array([name.lower() == "true" for name in names])
    if kind == "int":
        return _label_array([int(name) for name in names])
    return np.array([float(name) if kind == "float" else name for name in names])


def _require_rows(column: Any, what: str) -> None:
    """Check that a value contains rows in an order.

    Raises:
        InputError: it is one string, or a set.
    """
    if isinstance(column, (str, bytes)):
        raise InputError(f"{what} is one string; pass a list of {what}")
    if isinstance(column, (set, frozenset)):
        raise InputError(f"the {what} are a set, which has no order; pass a list")


def _values(column: Any, what: str) -> Any:
    """The rows of a column as a one-dimensional array or list."""
    _require_rows(column, what)
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column.to_pylist()
    if isinstance(column, (list, tuple)):
        return list(column)
    if not hasattr(column, "__array__"):
        if not isinstance(column, Iterable) or isinstance(column, Mapping):
            raise InputError(f"the {what} are a {type(column).__name__}; pass a list, an array or a table column")
        return list(column)  # an iterator, or a column of the datasets library
    try:
        values = np.asarray(column)
    except Exception:
        if not hasattr(column, "to_list"):
            raise
        return column.to_list()  # a polars type that numpy does not have
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"the {what} have shape {list(values.shape)}; pass one column")
    return values
