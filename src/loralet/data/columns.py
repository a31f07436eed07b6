"""Texts and labels handed over in Python: lists, arrays, Series of pandas or polars, Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from loralet.data.sources import Dataset, Split, fingerprint_splits
from loralet.errors import InputError, listed_rows
from loralet.tasks.single_label import SingleLabel

LABEL_TYPES = {"i": "int", "u": "int", "b": "bool", "U": "str", "f": "float"}
"""The kinds of numpy array that labels can be, by the name under which an artifact remembers them."""


def text_column(texts: Any, keep_empty: bool = False) -> pa.ChunkedArray:
    """Texts as one Arrow column.

    Args:
        texts: a list, tuple, numpy array, pandas or polars Series or Arrow column of strings; a table of one column will do.
        keep_empty: let empty texts pass (they can be classified, but nothing is learned from them).

    Raises:
        InputError: one string alone, something that is not text, nothing at all, or an empty text; places count from 0.
    """
    if isinstance(texts, (str, bytes)):
        raise InputError("the texts are one string; give a list of texts")
    values = _values(texts, "texts")
    if not len(values):
        raise InputError("there are no texts: give at least one")
    strange = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if strange:
        kind = type(values[strange[0]]).__name__
        raise InputError(
            f"{listed_rows(strange)} (counted from 0) hold{'s' if len(strange) == 1 else ''} no text but {kind}; drop or fill them"
        )
    empty = [] if keep_empty else [i for i, value in enumerate(values) if not value.strip()]
    if empty:
        raise InputError(
            f"{listed_rows(empty)} (counted from 0) {'is' if len(empty) == 1 else 'are'} empty; leave them out, with their labels"
        )
    return pa.chunked_array([pa.array(list(map(str, values)), pa.string())])


def label_column(labels: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The classes, sorted, in their own type, and each row's class number (int64).

    Args:
        labels: strings, whole numbers or booleans, in any of the forms that texts may have.
        rows: how many texts there are.

    Raises:
        InputError: another number of labels, one class only, a missing label, labels of mixed types or with a fraction.
    """
    values = _values(labels, "labels")
    if isinstance(values, list):  # as objects, or numpy would make strings of a mixture
        values = np.fromiter((v.item() if isinstance(v, np.generic) else v for v in values), object, len(values))
    if len(values) != rows:
        raise InputError(f"there are {rows} texts and {len(values)} labels; every text needs one")
    if values.dtype.kind in "OT":
        given = values.tolist()
        missing = [i for i, value in enumerate(given) if _missing(value)]
        if missing:
            raise InputError(f"{listed_rows(missing)} (counted from 0) ha{'s' if len(missing) == 1 else 've'} no label")
        kinds = {type(value) for value in given}
        if len(kinds) > 1:
            raise InputError(
                f"the labels are of several types ({', '.join(sorted(kind.__name__ for kind in kinds))}); make them all strings, say"
            )
        values = np.array(given)
    if values.dtype.kind not in LABEL_TYPES:
        raise InputError(f"labels of type {values.dtype} cannot be classes; give strings or whole numbers")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.round(values)).all()):
        raise InputError(
            "Unknown label type: continuous numbers; a classifier needs classes, as strings or whole numbers"
        )
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"there is only one class ({classes.tolist()[0]!r}); a classifier needs rows of at least two")
    return classes, numbers.astype(np.int64)


def memory_dataset(texts: pa.ChunkedArray, numbers: np.ndarray, names: Sequence[str]) -> Dataset:
    """A data set of training rows alone.

    Args:
        texts: the texts.
        numbers: class of each, ``[rows]``.
        names: the classes' names, in order.
    """
    train = Split(f"{len(texts):,} texts", texts, numbers)
    return Dataset(
        "rows given in Python", SingleLabel(tuple(names)), train, None, None, fingerprint_splits([train]), ()
    )


def label_type(classes: np.ndarray) -> str:
    """The name under which an artifact remembers the labels' type."""
    return LABEL_TYPES[classes.dtype.kind]


def classes_of(names: Sequence[str], kind: str) -> np.ndarray:
    """The classes in their own type, from an artifact's names: the inverse of writing them as strings."""
    if kind == "bool":
        return np.array([name == "True" for name in names])
    return np.array([{"int": int, "float": float}.get(kind, str)(name) for name in names])


def _missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas' NA is neither true nor false
        return True


def _values(column: Any, what: str) -> Any:
    """The rows of a column as a one-dimensional array or list."""
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return column.to_pylist()
    if isinstance(column, (list, tuple)):
        return list(column)
    if not hasattr(column, "__array__"):
        raise InputError(f"the {what} are a {type(column).__name__}; give a list, an array or a column of a table")
    values = np.asarray(column)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"the {what} have shape {list(values.shape)}; give one column")
    return values
