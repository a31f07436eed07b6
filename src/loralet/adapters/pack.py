"""A pack: its layout, initial values, and the operations on its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.base import AdapterMethod, Stack
from loralet.adapters.layout import Layout, PackShape, Slot, corner
from loralet.adapters.registry import METHODS
from loralet.adapters.spec import Method
from loralet.models.forward import Weights

INITIALIZER_RANGE = 0.02
"""Standard deviation of a new classifier's weights, as in BERT."""


def stream(seed: int, purpose: str) -> torch.Generator:
    """A random generator for one purpose; different purposes of one seed draw different numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


class Pack(Layout):
    """The layout of k classifiers, with initial values and the operations on tensors.

    Arguments and errors as for :class:`loralet.adapters.layout.Layout`; ``method`` is a name of
    :data:`loralet.adapters.registry.METHODS`.
    """

    def __init__(self, shape: PackShape, adapters: Sequence[Adapter], method: Method = "lora") -> None:
        super().__init__(shape, adapters, method)
        self.method: AdapterMethod = METHODS[method]

    def split(self, parameters: Float[Tensor, "k n"]) -> dict[str, Tensor]:
        """Split the parameters into tensors ``[k *shape]`` by slot name; views, so gradients reach the matrix."""
        pieces = torch.split(parameters, [slot.size for slot in self.slots], dim=1)
        return {slot.name: piece.view(-1, *slot.shape) for slot, piece in zip(self.slots, pieces, strict=True)}

    def stacks(self, tensors: Mapping[str, Tensor]) -> dict[str, Stack]:
        """The adapters' tensors by the full name of their linear layer."""
        parts = {name: self.shapes(name, self.rank) for name in self.adapted}
        return {
            name: Stack({part: tensors[f"{name}.{part}"] for part in shapes}, self._scales(name, tensors))
            for name, shapes in parts.items()
        }

    def _scales(self, name: str, tensors: Mapping[str, Tensor]) -> Float[Tensor, "k"]:
        device = tensors["classifier.weight"].device
        return torch.tensor([a.scale if name in a.linears else 0.0 for a in self.adapters], device=device)

    def start(self, weights: Weights) -> Float[Tensor, "k n"]:
        """Initial values. Each adapter draws from its seed, as in a pack of one.

        The adapter method initialises the adapters. The classifier is N(0, 0.02) with bias zero. A trained pooler
        starts from the checkpoint's pooler, or from N(0, 0.02) if the checkpoint has none; its norm starts from 1.

        Args:
            weights: the frozen tensors, including ``pooler.*`` if the checkpoint has a pooler.
        """
        parameters = torch.zeros(len(self.adapters), self.size)
        tensors = self.split(parameters)
        for i, adapter in enumerate(self.adapters):
            generator = stream(adapter.seed, "init")
            tensors["classifier.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            if self.shape.head == "trained-pooler" and "pooler.weight" not in weights:
                tensors["pooler.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            for name in self.adapted:
                if adapter.rank and name in adapter.linears:
                    weight = weights[f"{name}.weight"].float().cpu()
                    self.method.start(self._own(tensors, name, i), weight, generator)
        if "pooler.norm.weight" in tensors:
            tensors["pooler.norm.weight"].fill_(1.0)
        for name in tensors.keys() & weights.keys():
            tensors[name].copy_(weights[name].float())
        return parameters.to(weights["embeddings.word"].device)

    def _own(self, tensors: Mapping[str, Tensor], name: str, i: int) -> dict[str, Tensor]:
        """Adapter i's tensors on a linear layer, without padding; views."""
        shapes = self.shapes(name, self.adapters[i].rank)
        return {part: tensors[f"{name}.{part}"][i][corner(size)] for part, size in shapes.items()}

    def decay(self, weight_decay: float) -> Float[Tensor, "n"]:
        """Weight decay of each parameter; 0 for biases and norms."""
        return self._each(lambda slot: 0.0 if slot.name.endswith("bias") or "norm" in slot.name else weight_decay)

    def lr_factors(self, ratios: Sequence[float]) -> Float[Tensor, "k n"] | None:
        """Learning rate factor of each parameter (LoRA+, Hayou et al. 2024); None if all are 1.

        The groups are those of PEFT's ``create_loraplus_optimizer``: the ratio applies to B and to every vector
        (biases, DoRA's magnitudes), and not to A and the other matrices.

        Args:
            ratios: ratio of each adapter.
        """
        if all(ratio == 1 for ratio in ratios):
            return None
        faster = self._each(lambda slot: float(slot.name.endswith(".B") or len(slot.shape) == 1))
        return 1 + faster * (torch.tensor(ratios)[:, None] - 1)

    def _each(self, value: Callable[[Slot], float]) -> Float[Tensor, "n"]:
        return torch.cat([torch.full((slot.size,), value(slot)) for slot in self.slots])

    def extract(self, parameters: Float[Tensor, "k n"], i: int) -> dict[str, Tensor]:
        """Copies of adapter i's tensors, without padding (:meth:`own_shapes`)."""
        tensors = self.split(parameters)
        return {name: tensors[name][i][corner(size)].clone() for name, size in self.own_shapes(i).items()}

    def carry(self, parameters: Float[Tensor, "k n"], rows: Sequence[int], to: Pack) -> Float[Tensor, "j m"]:
        """Convert rows of this pack's matrix to the matrix of a smaller pack of those adapters."""
        return to.fill([self.extract(parameters, i) for i in rows]).to(parameters.device)

    def fill(self, tensors: Sequence[Mapping[str, Tensor]]) -> Float[Tensor, "k n"]:
        """The parameter matrix from each adapter's tensors; the inverse of :meth:`extract`.

        Raises:
            ValueError: an adapter's tensors do not match its configuration; the message lists all differences.
        """
        return torch.from_numpy(
            self.fill_array([{n: t.detach().float().cpu().numpy() for n, t in own.items()} for own in tensors])
        )
