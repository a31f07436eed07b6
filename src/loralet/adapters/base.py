"""The protocol of adapter methods, and code shared by all methods. Nothing here imports torch before it computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from jaxtyping import Float

from loralet.adapters.spec import Method
from loralet.models.table import LinearLayer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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


@dataclass(frozen=True)
class Stack:
    """The tensors of k adapters on one linear layer; ranks are padded with zeros to the largest.

    Args:
        tensors: tensors by the method's names, each with a leading axis k.
        scale: scale of each adapter; 0 if the adapter does not cover this layer.
    """

    tensors: Mapping[str, Tensor]
    scale: Float[Tensor, "k"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@runtime_checkable
class AdapterMethod(Protocol):
    """An adapter method: its tensors on a linear layer, and their effect on the layer.

    A method is stateless. The gradient of padded rows and columns must be zero, so that padding stays zero.
    """

    name: Method
    format: Format
    """Its tensors, and how PEFT stores them."""

    def start(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"], generator: torch.Generator) -> None:
        """Set the initial values of one adapter on one linear layer, in place.

        Args:
            tensors: the adapter's tensors, without padding, all zero.
            weight: the frozen weight.
            generator: source of random values.
        """
        ...

    def neutral(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"]) -> None:
        """Set the values of an adapter that does not change the layer, in place.

        Args:
            tensors: the adapter's tensors, all zero.
            weight: the frozen weight.
        """
        ...

    def effective(self, weight: Float[Tensor, "o d"], stack: Stack) -> Float[Tensor, "k o d"]:
        """The effective weight of each adapter, in the type of the frozen weight; differentiable."""
        ...

    def branch(
        self,
        x: Float[Tensor, "j b t d"],
        dropped: Float[Tensor, "k b t d"],
        weight: Float[Tensor, "o d"],
        bias: Float[Tensor, "o"] | None,
        stack: Stack,
    ) -> Float[Tensor, "k b t o"]:
        """The layer's output in training with dropout.

        Args:
            x: the layer's input; j is k, or 1 if all adapters share it.
            dropped: the input with each adapter's dropout applied.
            weight, bias: weight and bias of the frozen layer.
            stack: the adapters.
        """
        ...

    def rank(self, tensors: Mapping[str, Tensor]) -> int:
        """The rank of one adapter, from its tensors on a linear layer, without padding."""
        ...

    def scaled(self, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Tensors of the adapter of scale 1 that changes a layer as these tensors do with the scale ``factor``."""
        ...

    def mean(self, members: Sequence[Mapping[str, Tensor]], scales: Sequence[float]) -> dict[str, Tensor] | None:
        """Tensors of one adapter on a linear layer whose update is exactly the mean of the members' updates.

        Args:
            members: each member's tensors, without padding.
            scales: each member's scale.

        Returns:
            Tensors of rank ``sum of the members' ranks`` for the scale ``scales[0] / len(scales)``; None if the method
            has no such adapter.
        """
        ...

    def merge(self, weight: Float[Tensor, "o d"], tensors: Mapping[str, Tensor], scale: float) -> Float[Tensor, "o d"]:
        """The frozen weight with one adapter merged into it, in fp32.

        Args:
            weight: the frozen weight.
            tensors: the adapter's tensors, without padding.
            scale: the adapter's scale.
        """
        ...


def batched_linear(
    x: Float[Tensor, "j b t d"], weight: Float[Tensor, "k o d"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "k b t o"]:
    """``x W^T + b`` with one W per adapter; j is k, or 1 if all adapters share x."""
    import torch

    k, o, d = weight.shape
    if k == x.shape[0] == 1:  # the batched product would copy the bias to every row
        return torch.nn.functional.linear(x, weight[0], bias)
    rows = x.reshape(x.shape[0], -1, d).expand(k, -1, -1)
    columns = weight.transpose(1, 2)
    y = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias.expand(k, 1, o), rows, columns)
    return y.view(k, *x.shape[1:-1], o)
