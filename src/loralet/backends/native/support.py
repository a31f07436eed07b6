"""What the kernels support: an allow-list over every field of the layer table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loralet.cpu import AMD, cpu_vendor
from loralet.models.table import EncoderTable, unknown_fields

Condition = Callable[[EncoderTable], str | None]
"""Checks one field of a table: the reason why the kernels do not support it, or None."""

METHOD = "lora"
WIDTH, HEAD_SIZE, FEED_FORWARD = 32, 16, 16
"""Sizes must be multiples of these."""


def _any(table: EncoderTable) -> None:
    return None


def _only(field: str, value: object) -> Condition:
    def condition(table: EncoderTable) -> str | None:
        found = getattr(table, field)
        return None if found == value else f"{field} is {found!r}, it supports only {value!r}"

    return condition


def _multiple(what: str, size: Callable[[EncoderTable], int], of: int) -> Condition:
    def condition(table: EncoderTable) -> str | None:
        return f"{what} {size(table)} is not a multiple of {of}" if size(table) % of else None

    return condition


CONDITIONS: Mapping[str, Condition] = {
    "layers": _any,
    "width": _multiple("width", lambda table: table.width, WIDTH),
    "heads": _multiple("the head size", lambda table: table.width // table.heads, HEAD_SIZE),
    "feed_forward": _multiple("the feed-forward width", lambda table: table.feed_forward, FEED_FORWARD),
    "vocabulary": _any,
    "positions": _any,
    "token_types": _any,
    "embedding_width": _any,
    "first_position": _any,
    "activation": _only("activation", "gelu"),
    "epsilon": _any,
    "norm_first": _only("norm_first", False),
    "linear_bias": _only("linear_bias", True),
    "norm_bias": _only("norm_bias", True),
    "fused_attention": _only("fused_attention", False),
    "gated": _only("gated", False),
    "rotary_base": _only("rotary_base", 0.0),
    "local_rotary_base": _only("local_rotary_base", 0.0),
    "local_window": _only("local_window", 0),
    "global_every": _only("global_every", 1),
    "relative_buckets": _only("relative_buckets", 0),
}
"""A check for every field of the table that the kernels know. Tables with other fields are rejected."""


def unsupported(table: EncoderTable, method: str = METHOD) -> str | None:
    """The reason why the kernels cannot compute an encoder with adapters of this method; None if they can."""
    if method != METHOD:
        return f"it does not know the adapter method {method}"
    reasons = (condition(table) for condition in CONDITIONS.values())
    return unknown_fields(table, set(CONDITIONS)) or next(filter(None, reasons), None)


def bf16_is_faster(instructions: str) -> bool:
    """Whether the kernels of an instruction set are faster in bf16 than in fp32: AMX, and AVX-512 BF16 on AMD.

    On Intel, a bf16 dot product has no higher rate than two fp32 products (3,508 rows/s against 3,867, dev/LOG.md).
    """
    return instructions == "amx" or (instructions == "avx512-bf16" and cpu_vendor() == AMD)
