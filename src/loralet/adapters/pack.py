"""A pack as numbers: k adapters and heads over one frozen encoder, all their trained numbers in one matrix ``[k n]``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.adapters.lora import Adapter, DropoutMasks, Stack, dropout_factors, merged, unmerged
from loralet.backends.native.dropout import Draws, draw
from loralet.backends.native.encoder import Fused, States, fits
from loralet.backends.native.head import ACTIVATION, head_pass
from loralet.models.encoder import EncoderShape, Weights, encode
from loralet.models.head import classify, cross_entropy, first_token, mean_over_tokens, pool

Logits = Callable[[Tensor, Tensor], Tensor]
"""``(ids [b t], lengths [b]) -> logits [k b c]``."""

INITIALIZER_RANGE = 0.02
"""Standard deviation of a fresh classifier's weights, as BERT has it."""


@dataclass(frozen=True)
class Slot:
    """A piece of the trained numbers: the tensor of that name and shape, for each adapter."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator for one purpose, so that two purposes of one seed never share their numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(frozen=True)
class PackShape:
    """What is the same for all adapters of a pack.

    Args:
        encoder: sizes of the encoder.
        classes: number of labels.
        head: ``pooler`` (frozen), ``trained-pooler`` or ``mean``.
        head_dropout: dropout on the features that the classifier reads.
        full: train every tensor of the encoder as well (then the pack holds one run).
        activation: of the pooler.
    """

    encoder: EncoderShape
    classes: int
    head: str = "pooler"
    head_dropout: float = 0.0
    full: bool = False
    activation: str = "tanh"


class Pack:
    """k classifiers over one frozen encoder.

    Args:
        weights: frozen tensors, in the type of the arithmetic (see :func:`loralet.models.encoder.encode`);
            with ``pooler.*`` unless the head is ``mean``.
        shape: what the adapters share.
        adapters: the k configurations.
    """

    def __init__(self, weights: Weights, shape: PackShape, adapters: Sequence[Adapter]) -> None:
        self.weights = weights
        self.shape = shape
        self.adapters = tuple(adapters)
        names = {name for adapter in adapters if adapter.rank for name in adapter.linears}
        self.adapted = tuple(
            n.removesuffix(".weight") for n in shape.encoder.tensors() if n.removesuffix(".weight") in names
        )
        self.rank = max((adapter.rank for adapter in adapters), default=0)
        self.slots = tuple(self._slots())
        self.fused = Fused(weights, shape.encoder) if not shape.full and fits(weights, shape.encoder) else None
        self.pooler = {
            name: tensor.float().contiguous() for name, tensor in weights.items() if name.startswith("pooler.")
        }
        device = weights["embeddings.word"].device
        self.scales = {
            name: torch.tensor([a.scale if name in a.linears else 0.0 for a in self.adapters], device=device)
            for name in self.adapted
        }

    def _slots(self) -> list[Slot]:
        d, c = self.shape.encoder.width, self.shape.classes
        slots = [Slot("classifier.weight", (c, d)), Slot("classifier.bias", (c,))]
        if self.shape.head == "trained-pooler":
            slots += [Slot("pooler.weight", (d, d)), Slot("pooler.bias", (d,))]
        for name in self.adapted:
            d_in, d_out = self.shape.encoder.linear_sizes(name.split(".")[-1])
            slots += [Slot(f"{name}.A", (self.rank, d_in)), Slot(f"{name}.B", (d_out, self.rank))]
        if self.shape.full:
            slots += [Slot(name, shape) for name, shape in self.shape.encoder.tensors().items()]
            if self.shape.head == "pooler":
                slots += [Slot("pooler.weight", (d, d)), Slot("pooler.bias", (d,))]
        return slots

    def split(self, parameters: Float[Tensor, "k n"]) -> dict[str, Tensor]:
        """The trained numbers as tensors ``[k *shape]`` by slot name; views, so gradients flow back into the matrix."""
        pieces = torch.split(parameters, [slot.size for slot in self.slots], dim=1)
        return {slot.name: piece.view(-1, *slot.shape) for slot, piece in zip(self.slots, pieces, strict=True)}

    def start(self) -> Float[Tensor, "k n"]:
        """Initial values: each adapter draws its own, from its own seed, as it would alone.

        A is Kaiming-uniform with a = sqrt(5), that is U(-1/sqrt(d), 1/sqrt(d)) (PEFT's choice), B zero, the classifier N(0, 0.02) with bias zero;
        a pooler that is trained starts from the checkpoint's, or N(0, 0.02) where the checkpoint has none.
        """
        parameters = torch.zeros(len(self.adapters), sum(slot.size for slot in self.slots))
        tensors = self.split(parameters)
        for i, adapter in enumerate(self.adapters):
            generator = stream(adapter.seed, "init")
            tensors["classifier.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            if self.shape.head == "trained-pooler" and "pooler.weight" not in self.weights:
                tensors["pooler.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            for name in self.adapted:
                if adapter.rank and name in adapter.linears:
                    a = tensors[f"{name}.A"][i, : adapter.rank]
                    bound = 1 / math.sqrt(a.shape[1])
                    a.uniform_(-bound, bound, generator=generator)
        for name in tensors.keys() & self.weights.keys():
            tensors[name].copy_(self.weights[name].float())
        return parameters.to(self.weights["embeddings.word"].device)

    def decay(self, weight_decay: float) -> Float[Tensor, "n"]:
        """Weight decay of each trained number: none for biases and norms."""
        pieces = [
            torch.full((slot.size,), 0.0 if slot.name.endswith("bias") or "norm" in slot.name else weight_decay)
            for slot in self.slots
        ]
        return torch.cat(pieces).to(self.weights["embeddings.word"].device)

    def logits(
        self,
        parameters: Float[Tensor, "k n"],
        masks: DropoutMasks | Draws | None = None,
        head: Float[Tensor, "k b d"] | None = None,
    ) -> Logits:
        """The forward pass with these numbers: a function of a batch, ``(ids [b t], lengths [b]) -> logits [k b c]`` in fp32.

        Effective weights are formed here, once, so that in evaluation they serve any number of batches.

        Args:
            parameters: the trained numbers.
            masks: dropout of the adapters' inputs (:meth:`masks`), for one batch alone; None in evaluation.
            head: factors of the features that the classifier reads (:meth:`head_factors`); None in evaluation.
        """
        tensors = self.split(parameters)
        weights = self.weights
        if self.shape.full:
            dtype = weights["embeddings.word"].dtype
            weights = weights | {name: tensor[0].to(dtype) for name, tensor in tensors.items() if name in weights}
        encoder = self._encoder(
            weights, self._stacks(tensors), masks, trained=torch.is_grad_enabled() and parameters.requires_grad
        )

        def apply(ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "k b c"]:
            read: Literal["first", "all"] = "all" if self.shape.head == "mean" else "first"
            states = encoder(ids, lengths, read)
            features = self._features(weights, tensors, states, lengths)
            if head is not None:
                features = features * head
            return classify(features, tensors["classifier.weight"], tensors["classifier.bias"])

        return apply

    def losses_and_gradient(
        self,
        parameters: Float[Tensor, "k n"],
        ids: Int[Tensor, "b t"],
        lengths: Int[Tensor, "b"],
        labels: Int[Tensor, "b"],
        masks: DropoutMasks | Draws | None = None,
        head: Float[Tensor, "k b d"] | None = None,
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        """Each adapter's mean loss over a batch, in nats, and the gradient of the sum of them: each row is what it would be alone.

        Where the kernels can, they do all of it, without torch's bookkeeping.

        Args:
            parameters, masks, head: see :meth:`logits`.
            ids, lengths: the batch.
            labels: class numbers.
        """
        if self.fused is None or isinstance(masks, DropoutMasks) or self.shape.activation != ACTIVATION:
            leaf = parameters.detach().requires_grad_()
            losses = cross_entropy(self.logits(leaf, masks, head)(ids, lengths), labels)
            return losses.detach(), torch.autograd.grad(losses.sum(), leaf)[0]
        parameters = parameters.detach().contiguous()
        gradient = torch.empty_like(parameters)
        tensors, gradients = self.split(parameters), self.split(gradient)
        mean = self.shape.head == "mean"
        batch = self.fused.adapted(self._stacks(tensors), masks, backward=True).batch(
            ids, lengths, "all" if mean else "first", backward=True
        )
        losses, grad = head_pass(
            batch.go_forward(), batch.starts if mean else None, labels, head, self.pooler, tensors, gradients
        )
        if batch.backward and grad is not None:
            batch.go_backward(grad, {name: (gradients[f"{name}.A"], gradients[f"{name}.B"]) for name in self.adapted})
        return losses, gradient

    def _stacks(self, tensors: dict[str, Tensor]) -> dict[str, Stack]:
        return {name: Stack(tensors[f"{name}.A"], tensors[f"{name}.B"], self.scales[name]) for name in self.adapted}

    @property
    def splits_by_itself(self) -> bool:
        """Whether the forward and the backward pass use several threads by themselves, so that a batch need not be split for them."""
        return self.fused is not None

    def _encoder(
        self, weights: Weights, stacks: dict[str, Stack], masks: DropoutMasks | Draws | None, trained: bool
    ) -> States:
        """The way to the last states: in one call into C where that can be had, else layer by layer in torch, as for full fine-tuning."""
        fused = self.fused
        if self.shape.full and not trained and fits(weights, self.shape.encoder):
            fused = Fused(weights, self.shape.encoder)
        if fused is not None and not isinstance(masks, DropoutMasks):
            return fused.adapted(stacks, masks, backward=trained).states
        if isinstance(masks, DropoutMasks) and any(adapter.dropout for adapter in self.adapters):
            linear = unmerged(weights, stacks, masks)
        else:
            linear = merged(weights, stacks)
        return lambda ids, lengths, read: encode(weights, self.shape.encoder, ids, lengths, linear, read)

    def _features(
        self, weights: Weights, tensors: dict[str, Tensor], states: Float[Tensor, "j b s d"], lengths: Int[Tensor, "b"]
    ) -> Float[Tensor, "i b d"]:
        if self.shape.head == "mean":
            return mean_over_tokens(states, lengths)
        if "pooler.weight" in tensors:
            return pool(first_token(states), tensors["pooler.weight"], tensors["pooler.bias"], self.shape.activation)
        return pool(
            first_token(states), weights["pooler.weight"][None], weights["pooler.bias"][None], self.shape.activation
        )

    def head_factors(self, generators: Sequence[torch.Generator], rows: int) -> Float[Tensor, "k b d"] | None:
        """Dropout of the head for a whole batch, so that it does not depend on how the batch is split; None where there is none."""
        p, width = self.shape.head_dropout, self.shape.encoder.width
        return dropout_factors([p] * len(self.adapters), generators, (rows, width)) if p else None

    def masks(self, generators: Sequence[torch.Generator]) -> DropoutMasks | Draws:
        """Dropout of the adapters' inputs for one batch, from each adapter's own generator: keys for the kernels, or masks as torch asks for them."""
        return DropoutMasks(self.adapters, generators) if self.fused is None else draw(self.adapters, generators)

    def trainable(self, i: int) -> int:
        """Trained numbers of adapter i, padding not counted."""
        adapter = self.adapters[i]
        absent = {
            f"{name}.{m}" for name in self.adapted if name not in adapter.linears or not adapter.rank for m in "AB"
        }
        real = (slot for slot in self.slots if slot.name not in absent)
        return sum(
            slot.size * adapter.rank // self.rank if slot.name.endswith((".A", ".B")) else slot.size for slot in real
        )

    def extract(self, parameters: Float[Tensor, "k n"], i: int) -> dict[str, Tensor]:
        """Adapter i's own tensors, without the padding and without linear maps that it does not sit on."""
        adapter = self.adapters[i]
        own: dict[str, Tensor] = {}
        for name, tensor in self.split(parameters).items():
            base, _, kind = name.rpartition(".")
            if kind in ("A", "B"):
                if base in adapter.linears and adapter.rank:
                    own[name] = (tensor[i, : adapter.rank] if kind == "A" else tensor[i, :, : adapter.rank]).clone()
            else:
                own[name] = tensor[i].clone()
        return own

    def carry(self, parameters: Float[Tensor, "k n"], rows: Sequence[int], to: Pack) -> Float[Tensor, "j m"]:
        """Rows of a matrix of this pack's layout as the matrix of a smaller pack made of those adapters."""
        return to.fill([self.extract(parameters, i) for i in rows])

    def fill(self, tensors: Sequence[dict[str, Tensor]]) -> Float[Tensor, "k n"]:
        """The matrix of trained numbers from each adapter's own tensors: the inverse of :meth:`extract`."""
        parameters = torch.zeros(len(self.adapters), sum(slot.size for slot in self.slots))
        stacked = self.split(parameters)
        for i, own in enumerate(tensors):
            for name, tensor in own.items():
                stacked[name][i][tuple(slice(0, size) for size in tensor.shape)] = tensor
        return parameters.to(self.weights["embeddings.word"].device)
