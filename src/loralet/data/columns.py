"""Texts and labels passed in Python: lists, arrays, pandas or polars Series, Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from loralet.data.sources import Dataset, Split, fingerprint_splits
from loralet.errors import InputError, is_utf8, listed_rows
from loralet.tasks.base import Task

LABEL_TYPES = {"i": "int", "u": "int", "b": "bool", "U": "str", "f": "float"}
"""Kinds of numpy arrays that labels can be, with the name that an artifact stores."""


def text_column(texts: Any, keep_empty: bool = False) -> pa.ChunkedArray:
    """Texts as one Arrow column.

    Args:
        texts: a list, tuple, numpy array, pandas or polars Series or Arrow column of strings, or a table of one column.
        keep_empty: accept empty texts (they can be classified, but not trained on).

    Raises:
        InputError: a single string, a value that is not a string or not UTF-8, no texts, or an empty text. Rows
            count from 0.
    """
    if isinstance(texts, (str, bytes)):
        raise InputError("texts is one string; pass a list of texts")
    values = _values(texts, "texts")
    if not len(values):
        raise InputError("there are no texts; pass at least one")
    strange = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if strange:
        kind = type(values[strange[0]]).__name__
        raise InputError(
            f"{listed_rows(strange)} (counted from 0) contain{'s' if len(strange) == 1 else ''} {kind}, not text; "
            "drop or fill them"
        )
    empty = [] if keep_empty else [i for i, value in enumerate(values) if not value.strip()]
    if empty:
        raise InputError(
            f"{listed_rows(empty)} (counted from 0) {'is' if len(empty) == 1 else 'are'} empty; "
            "remove them and their labels"
        )
    _require_utf8(values)
    return pa.chunked_array([pa.array(list(map(str, values)), pa.string())])


def _require_utf8(values: Sequence[Any]) -> None:
    """Check texts or labels for lone surrogates, which come from bytes that are not UTF-8.

    Raises:
        InputError: there are some.
    """
    broken = [i for i, value in enumerate(values) if isinstance(value, str) and not is_utf8(value)]
    if broken:
        verb = "is" if len(broken) == 1 else "are"
        raise InputError(
            f"{listed_rows(broken)} (counted from 0) {verb} not UTF-8 text: {values[broken[0]]!a}; "
            "decode the bytes with their encoding"
        )


def label_column(labels: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes, in the type of the labels, and the class number of each row (int64).

    Args:
        labels: strings, integers or booleans, in any container that texts may have.
        rows: number of texts.

    Raises:
        InputError: another number of labels than texts, a single class, a missing label, labels of mixed types,
            labels with a fractional part, or labels that are not UTF-8.
    """
    values = _values(labels, "labels")
    if isinstance(values, list):  # as objects, because numpy converts mixed types to strings
        values = np.fromiter((v.item() if isinstance(v, np.generic) else v for v in values), object, len(values))
    if len(values) != rows:
        raise InputError(f"there are {rows} texts and {len(values)} labels; every text needs one label")
    if values.dtype.kind in "OT":
        given = values.tolist()
        missing = [i for i, value in enumerate(given) if _missing(value)]
        if missing:
            raise InputError(f"{listed_rows(missing)} (counted from 0) ha{'s' if len(missing) == 1 else 've'} no label")
        kinds = {type(value) for value in given}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise InputError(f"the labels have mixed types ({names}); use one type, for example strings")
        values = np.array(given)
    if values.dtype.kind not in LABEL_TYPES:
        raise InputError(f"labels of type {values.dtype} are not supported; use strings or integers")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.round(values)).all()):
        raise InputError("Unknown label type: continuous numbers; a classifier needs classes: strings or integers")
    if values.dtype.kind == "U":
        _require_utf8(values.tolist())
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"there is only one class ({classes.tolist()[0]!r}); a classifier needs at least two")
    return classes, numbers.astype(np.int64)


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
            f"sample_weight: {listed_rows(strange)} (counted from 0), such as {values[strange[0]]}: a weight must be "
            "finite and not negative"
        )
    if not values.any():
        raise InputError("sample_weight: all weights are 0; give at least one above 0")
    return values


def memory_dataset(
    texts: pa.ChunkedArray, targets: np.ndarray, task: Task, weights: np.ndarray | None = None
) -> Dataset:
    """A data set with training rows only.

    Args:
        texts: the texts.
        targets: the labels as the task encodes them, one row per text.
        task: the task.
        weights: weight of each row in the loss; None: all 1.
    """
    train = Split(f"{len(texts):,} texts", texts, targets, weights=weights)
    return Dataset("rows given in Python", task, train, None, None, fingerprint_splits([train]), ())


def label_type(classes: np.ndarray) -> str:
    """The name of the label type that an artifact stores."""
    return LABEL_TYPES[classes.dtype.kind]


def classes_of(names: Sequence[str], kind: str) -> np.ndarray:
    """Convert the class names of an artifact back to the type of the labels."""
    if kind == "bool":
        return np.array([name == "True" for name in names])
    return np.array([{"int": int, "float": float}.get(kind, str)(name) for name in names])


def _missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True


def _values(column: Any, what: str) -> Any:
    """The rows of a column as a one-dimensional array or list."""
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column.to_pylist()
    if isinstance(column, (list, tuple)):
        return list(column)
    if not hasattr(column, "__array__"):
        raise InputError(f"the {what} are a {type(column).__name__}; pass a list, an array or a table column")
    values = np.asarray(column)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"the {what} have shape {list(values.shape)}; pass one column")
    return values
