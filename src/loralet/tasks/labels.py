"""Labels as values: one name for each value, whatever the file format and the spelling."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from typing import Literal

LabelType = Literal["str", "int", "float", "bool"]
"""The type of the labels in the training data. Names are strings for every type."""

NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
"""A decimal number. Its exponent is short, so that its value has a bounded number of digits."""
MOST_DIGITS = 400
"""Longer numbers are names: comparing their values is not worth their digits."""


def label_key(name: str) -> Hashable:
    """What a label stands for. Two names with the same key are spellings of one value.

    ``1``, ``1.0``, ``01`` and ``1e0`` are the number 1; ``True`` and ``true`` the same truth value; other names stand
    for themselves.
    """
    text = name.strip()
    if len(text) <= MOST_DIGITS and NUMBER.fullmatch(text):
        value = Decimal(text)
        return "number", value.normalize() if value else Decimal(0)
    if text.lower() in ("true", "false"):
        return "bool", text.lower()
    return "name", name


class LabelLookup:
    """The index of each of some names, by name, else by value if only one of the names has that value.

    Args:
        names: the names, in the order of their indices.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._by_name = {name: i for i, name in reversed(list(enumerate(names)))}
        self._by_key: dict[Hashable, int | None] = {}
        for i, name in enumerate(names):
            key = label_key(name)
            self._by_key[key] = None if key in self._by_key else i

    def find(self, name: str) -> int | None:
        """The index of a label; None if it is unknown, or a spelling of several names."""
        found = self._by_name.get(name)
        return self._by_key.get(label_key(name)) if found is None else found


def sorted_labels(names: Iterable[str], kind: LabelType) -> list[str]:
    """Distinct names: numbers by value, others alphabetically."""
    distinct = set(names)
    if kind in ("int", "float"):
        return sorted(distinct, key=lambda name: (Decimal(name), name))
    return sorted(distinct)


def common_type(kinds: Iterable[LabelType]) -> LabelType:
    """The type of labels from several files: that of all, float for both kinds of numbers, else strings."""
    distinct = set(kinds)
    if len(distinct) == 1:
        return distinct.pop()
    return "float" if distinct == {"int", "float"} else "str"
