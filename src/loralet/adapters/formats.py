"""The tensors of each adapter method, and how PEFT stores them; without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from loralet.adapters.spec import Method
from loralet.models.table import LinearLayer

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Format:
    """The storage of an adapter method.

    Args:
        shapes: names and shapes of one adapter's tensors on a linear layer, given its rank.
        peft_names: PEFT's tensor names, relative to the module path, by the method's names.
        peft_config: entries of the method in PEFT's adapter_config.json.
    """

    shapes: Callable[[LinearLayer, int], Shapes]
    peft_names: Mapping[str, str]
    peft_config: Mapping[str, object] = field(default_factory=dict)


def _lora(linear: LinearLayer, rank: int) -> Shapes:
    return {"A": (rank, linear.d_in), "B": (linear.d_out, rank)}


def _dora(linear: LinearLayer, rank: int) -> Shapes:
    return {**_lora(linear, rank), "magnitude": (linear.d_out,)}


LORA = Format(_lora, {"A": "lora_A.weight", "B": "lora_B.weight"})
DORA = Format(_dora, {**LORA.peft_names, "magnitude": "lora_magnitude_vector"}, {"use_dora": True})
FORMATS: Mapping[Method, Format] = {"lora": LORA, "dora": DORA}
