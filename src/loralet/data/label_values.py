"""The labels of a column by their canonical names, and their type.

A name does not depend on the format: the integer 1, the float 1.0 and the cells ``1`` and ``1.0`` of a CSV file are all
named ``1``; true, ``True`` and ``TRUE`` are named ``true``. In text without types, the type is that of all cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

from loralet.tasks.labels import LabelType, common_type

WHOLE = re.compile(r"0|-?[1-9][0-9]*")
"""An integer as it is usually written. ``01`` and ``+1`` are names."""
WHOLE_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.0*")
"""An integer written as a float, as pandas does for a column with a missing value."""
SCIENTIFIC = re.compile(r"-?[0-9](\.[0-9]*)?[eE][+-]?[0-9]{1,2}")
"""A float in scientific notation, as numpy's ``savetxt`` and pandas write large ones."""
FRACTION = re.compile(r"-?[0-9]*\.[0-9]+")
EXACT = 2**53
"""Floats below have exact integer values; larger ones keep their scientific notation."""
FEW_VALUES = 10
"""Up to this number of distinct labels, fractions such as ratings are classes."""


class LabelError(ValueError):
    """Labels that are not classes; ``index`` is the first such row, or None if all of them are concerned."""

    def __init__(self, text: str, index: int | None = None) -> None:
        super().__init__(text)
        self.index = index


def named_labels(cells: Sequence[Any], typed: bool) -> tuple[list[str | None], LabelType]:
    """Canonical names of a column, None for missing labels, and the type of the labels.

    Args:
        cells: the values; strings if ``typed`` is false.
        typed: whether the values have types; else the type is inferred, as CSV has none.

    Raises:
        LabelError: types that are not labels, mixed types, or numbers with too many distinct values to be classes.
    """
    if not typed:
        return _untyped(cells)
    kind, name = _typed(cells)
    made: dict[tuple[type, Any], str | None] = {}
    names: list[str | None] = []
    for cell in cells:
        if is_missing(cell):
            names.append(None)
            continue
        key = (type(cell), cell)
        if key not in made:
            made[key] = name(cell)
        names.append(made[key])
    _require_classes(names, kind)
    return names, kind


def _untyped(cells: Sequence[str | None]) -> tuple[list[str | None], LabelType]:
    stripped = [cell.strip() or None if cell else None for cell in cells]
    kind, name = _inferred({cell for cell in stripped if cell is not None})
    named = {cell: name(cell) for cell in set(stripped) if cell is not None}
    if kind == "str" and any(map(FRACTION.fullmatch, named)) and all(map(_is_number, named)):
        _require_classes([cell for cell in stripped if cell is not None], "float")
    return [None if cell is None else named[cell] for cell in stripped], kind


def _inferred(distinct: set[str]) -> tuple[LabelType, Callable[[str], str]]:
    """The type of the cells of a text file, and the name of a cell."""
    if not distinct:
        return "str", str
    if all(map(WHOLE.fullmatch, distinct)):
        return "int", str
    if all(map(_is_whole, distinct)):
        return "float", _whole_name
    if all(cell.lower() in ("true", "false") for cell in distinct):
        return "bool", str.lower
    return "str", str


def _is_whole(cell: str) -> bool:
    """Whether a cell is an integer, written as one, as a float or in scientific notation."""
    scientific = SCIENTIFIC.fullmatch(cell)
    return bool(WHOLE.fullmatch(cell) or WHOLE_FLOAT.fullmatch(cell) or (scientific and float(cell).is_integer()))


def _is_number(cell: str) -> bool:
    return bool(FRACTION.fullmatch(cell) or SCIENTIFIC.fullmatch(cell) or WHOLE.fullmatch(cell))


def _whole_name(cell: str) -> str:
    if SCIENTIFIC.fullmatch(cell):
        return _number_name(float(cell))
    name = cell.partition(".")[0]
    return "0" if name == "-0" else name


def _typed(cells: Sequence[Any]) -> tuple[LabelType, Callable[[Any], str | None]]:
    """The type of typed values, and how they are named.

    Raises:
        LabelError: types that are not labels, or mixed types.
    """
    first: dict[LabelType, int] = {}
    for i, cell in enumerate(cells):
        if is_missing(cell):
            continue
        kind = type_of(cell)
        if kind is None:
            raise LabelError(
                f"a label is of type {type(cell).__name__}; write one class per text, as a string or an integer", i
            )
        first.setdefault(kind, i)
    if len(first) > 1 and set(first) != {"int", "float"}:
        (one, _), (other, i) = sorted(first.items(), key=lambda pair: pair[1])[:2]
        raise LabelError(f"a label is {other}, but {one} in earlier rows; use one type, for example strings", i)
    kind = common_type(first) if first else "str"
    return kind, _NAME[kind]


def type_of(cell: Any) -> LabelType | None:
    """The label type of a value; None for a value that is no label."""
    if isinstance(cell, bool):
        return "bool"
    for kind, name in ((int, "int"), (float, "float"), (str, "str")):
        if isinstance(cell, kind):
            return name  # type: ignore[return-value]  # one of the four
    return None


def is_missing(cell: Any) -> bool:
    """Whether a value stands for no label: None, NaN, or pandas' NA and NaT."""
    try:
        return cell is None or bool(cell != cell)
    except (TypeError, ValueError):  # pandas.NA has no truth value; an array has several
        return type(cell).__name__ in ("NAType", "NaTType")


def _number_name(value: float) -> str:
    """The name of a number: an integer without a fraction if its value is exact."""
    if isinstance(value, int):
        return str(value)
    if isnan(value) or not isfinite(value):
        raise LabelError(f"the label {value} is not a finite number")
    return str(int(value)) if value.is_integer() and abs(value) < EXACT else repr(value)


_NAME: dict[LabelType, Callable[[Any], str | None]] = {
    "str": lambda cell: cell.strip() or None,
    "bool": lambda cell: str(bool(cell)).lower(),
    "int": _number_name,
    "float": _number_name,
}
"""How values of a type are named."""


def _require_classes(names: Iterable[str | None], kind: LabelType) -> None:
    """Reject continuous numbers, such as the targets of a regression."""
    if kind != "float":
        return
    present = [name for name in names if name is not None]
    distinct = set(present)
    if len(distinct) > max(FEW_VALUES, len(present) // 2) and any(Decimal(name) % 1 for name in distinct):
        raise LabelError(
            f"the labels are continuous numbers ({len(distinct):,} different ones in {len(present):,} rows); "
            "a classifier needs classes: write them as integers or names"
        )
