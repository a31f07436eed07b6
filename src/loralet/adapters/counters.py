"""The counters of dropout masks (:mod:`loralet.adapters.dropout`): keys of a step, and indices of linear layers."""

from __future__ import annotations

from loralet.models.table import EncoderTable

GOLDEN = 0x9E3779B9
"""2^32 divided by the golden ratio; its multiples spread linear layers over the 32-bit integers."""
WORD = 0xFFFFFFFF


def dropout_keys(seed: int, step: int) -> tuple[int, int]:
    """Two 32-bit keys of one adapter at one step: the halves of SplitMix64 (Steele et al. 2014) of seed and step."""
    mixed = _split_mix(_split_mix(seed) + step)
    return mixed & WORD, mixed >> 32


def _split_mix(x: int) -> int:
    word = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & word
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return x ^ (x >> 31)


def linear_index(table: EncoderTable, name: str) -> int:
    """Index of a linear layer (``layers.0.query``) over all encoder layers; an input of the mask's hash."""
    _, layer, target = name.split(".")
    return int(layer) * len(table.linears) + table.targets.index(target)


def head_index(table: EncoderTable) -> int:
    """Index of the classification head: one past the last linear layer."""
    return table.layers * len(table.linears)
