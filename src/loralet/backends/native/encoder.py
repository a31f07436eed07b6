"""The encoder with adapters as one call into C: rows without padding, chunk by chunk through all layers, and the adapted weights' gradients.

To rounding it is what :func:`loralet.models.encoder.encode` gives with :func:`loralet.adapters.lora.merged` weights; the tests compare the two.
It takes fp32 or bf16 on the processor, exact GELU, a width that is a multiple of 32, heads and feed-forward that are multiples of 16. All else goes torch's way.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from loralet.adapters.lora import Stack
from loralet.backends.native.attention import LANES, kernels, pointers
from loralet.backends.native.dropout import Draws, MapDropout
from loralet.models.encoder import EncoderShape, Weights, embed

MAPS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""A layer's linear maps, in the order of the kernels."""
CHUNK_TOKENS = 224
"""Tokens that go through all layers together, about: what they need of one layer stays in the processor's second cache."""
PARTS = 2
"""Parts that the gradients' sums are split into, one thread each. Fixed, so that a result does not depend on the number of cores."""

Units = tuple[Tensor, Tensor | None]
"""A linear map ready for the kernels' forward and backward pass."""
States = Callable[[Tensor, Tensor, Literal["first", "all"]], Tensor]
"""``(ids [b t], lengths [b], read) -> states [k b s d]``; positions of s beyond a row's length are zero."""


class _Layer(ctypes.Structure):
    _fields_ = [
        ("forward", ctypes.c_void_p * 6),
        ("backward", ctypes.c_void_p * 6),
        ("bias", ctypes.c_void_p * 6),
        ("norm", ctypes.c_void_p * 4),
        ("grad", ctypes.c_void_p * 6),
        ("adapted", ctypes.c_int64 * 6),
        ("own", ctypes.c_int64 * 7),
        ("dropout", ctypes.c_void_p * 6),
        ("formed", ctypes.c_int64),
    ]


class _LowRank(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("a", "b", "scale")),
        *((name, ctypes.c_int64) for name in ("a_set", "b_set", "rank")),
    ]


class _Encoder(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "layers",
                "width",
                "heads",
                "feed_forward",
                "sets",
                "rows",
                "threads",
                "first",
                "backward",
                "lowest",
                "chunk",
                "dropout_rank",
            )
        ),
        *((name, ctypes.c_void_p) for name in ("starts", "ids", "words", "places", "embedding_norm", "x", "layer")),
        ("epsilon", ctypes.c_float),
    ]


def fits(weights: Weights, shape: EncoderShape) -> bool:
    """Whether the kernels can compute this encoder with these weights."""
    whole = not (shape.width % (2 * LANES) or (shape.width // shape.heads) % LANES or shape.feed_forward % LANES)
    return shape.activation == "gelu" and whole and kernels(weights["embeddings.word"]) is not None


class Fused:
    """An encoder's frozen weights as the kernels take them.

    Args:
        weights: the frozen tensors, all of one type (see :func:`fits`).
        shape: sizes of the encoder.
    """

    def __init__(self, weights: Weights, shape: EncoderShape) -> None:
        self.weights, self.shape = weights, shape
        self.plain = {
            name: t.float().contiguous() for name, t in weights.items() if name.startswith("layers.") and t.dim() == 1
        }
        self.words = weights["embeddings.word"].contiguous()
        self.places, self.norm = self._tables()
        self.units: dict[str, Units] = {}
        self.both = (
            f"layers.{shape.layers - 1}.key",
        )  # the last layer's scores need it both ways round, in evaluation too
        self.free: list[Tensor] = []  # memory that batches have given back

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Position embeddings from the first position on, with the type embedding added in fp32 and rounded once; weight and bias of the norm."""
        places = self.weights["embeddings.position"][self.shape.first_position :].float()
        if self.shape.token_types:
            places = places + self.weights["embeddings.type"][0].float()
        norm = [self.weights[f"embeddings.norm.{kind}"] for kind in ("weight", "bias")]
        return places.to(norm[0].dtype).contiguous(), torch.stack(norm)

    def require_known(self, ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"]) -> None:
        """Check what the kernels take on trust, and would read beyond their tables for.

        Raises:
            IndexError: a token id that is not in the vocabulary, a row without tokens, or one longer than the position table.
        """
        (low, high), (shortest, longest) = ((int(x) for x in t.aminmax()) for t in (ids, lengths))
        if low < 0 or high >= self.shape.vocabulary:
            raise IndexError(f"token ids run from {low} to {high}; the vocabulary has {self.shape.vocabulary}")
        if shortest < 1 or longest > min(self.shape.longest, ids.shape[1]):
            raise IndexError(
                f"rows have {shortest} to {longest} tokens; they must have from 1 to {min(self.shape.longest, ids.shape[1])}"
            )

    def memory(self, size: int) -> Tensor:
        """So many bytes for a batch, from those that an earlier one has given back where they are enough."""
        kept = self.free.pop() if self.free else torch.empty(0, dtype=torch.uint8)
        return kept if kept.numel() >= size else torch.empty(size * 5 // 4, dtype=torch.uint8)

    def prepare(self, name: str, low: _LowRank | None, sets: int, backward: bool) -> Units:
        """A linear map's units, with an adapter's product added where there is one."""
        weight = self.weights[f"{name}.weight"].contiguous()
        forward, back = (
            weight.new_empty(sets, weight.numel()),
            weight.new_empty(sets, weight.numel()) if backward else None,
        )
        pointer = None if low is None else ctypes.byref(low)
        _call("prepare", weight, weight, pointer, sets, *weight.shape, forward, back, torch.get_num_threads())
        return forward, back

    def dropout(self, name: str, stack: Stack, draws: Draws) -> MapDropout:
        """The adapters with dropout on one linear map, ready for the kernels."""
        weight = self.weights[f"{name}.weight"]
        return MapDropout(stack, _low_rank(stack), draws, weight, kernels(weight), PARTS)

    def frozen(self, name: str, backward: bool) -> Units:
        """A frozen linear map's units, made when they are first asked for."""
        made = self.units.get(name)
        if made is None or (backward and made[1] is None):
            made = self.units[name] = self.prepare(name, None, 1, backward)
        return made

    def adapted(self, stacks: dict[str, Stack], draws: Draws | None = None, backward: bool = False) -> Adapted:
        """The encoder with ``scale * B A`` added to the adapted weights, formed here once for any number of batches.

        Args:
            stacks: the adapters' matrices by linear map.
            draws: keys of the dropout on the adapters' inputs, for one batch alone; an adapter that has some is computed beside the weights.
            backward: whether gradients will be asked for.
        """
        return Adapted(self, stacks, draws if draws and any(draws) else None, backward and bool(stacks))


class Adapted:
    """An encoder with its adapters' weights: the layers as the kernels read them, and the tensors that they point to.

    Args:
        fused: the frozen encoder.
        stacks: the adapters' matrices by linear map.
        draws: keys of their inputs' dropout; None where there is none.
        backward: whether gradients will be asked for.
    """

    def __init__(self, fused: Fused, stacks: dict[str, Stack], draws: Draws | None, backward: bool) -> None:
        self.fused, self.stacks, self.backward, self.used = fused, stacks, backward, False
        self.sets = next(iter(stacks.values())).a.shape[0] if stacks else 1
        self.layers = (_Layer * fused.shape.layers)()
        self.lowest = min((int(name.split(".")[1]) for name in stacks), default=fused.shape.layers)
        self.dropout = {name: fused.dropout(name, stack, draws) for name, stack in stacks.items()} if draws else {}
        self.quiet = {name: _quiet(stack, self.dropout.get(name)) for name, stack in stacks.items()}
        self.low = {name: _low_rank(stack) for name, stack in self.quiet.items()}
        # Held here, frozen ones too: the layers only point to them.
        self.units = {
            name: fused.prepare(name, low, self.sets, backward or name in fused.both) for name, low in self.low.items()
        }
        live = False
        for i, layer in enumerate(self.layers):
            names = [f"layers.{i}.{name}" for name in MAPS]
            layer.adapted[:] = [name in stacks for name in names]
            layer.own[:], live = _own([name in stacks for name in names], live)
            for j, name in enumerate(names):
                if name not in stacks:
                    self.units[name] = fused.frozen(name, (backward and i >= self.lowest) or name in fused.both)
                forward, back = self.units[name]
                layer.forward[j], layer.backward[j] = forward.data_ptr(), None if back is None else back.data_ptr()
                layer.bias[j] = fused.plain[f"{name}.bias"].data_ptr()
            norms = (
                f"layers.{i}.{norm}.{kind}" for kind in ("weight", "bias") for norm in ("attention-norm", "output-norm")
            )
            layer.norm[:] = [fused.plain[name].data_ptr() for name in norms]
            dropped = [self.dropout.get(name) for name in names]
            layer.dropout[:] = [ctypes.addressof(own.structs) if own and own.sets else None for own in dropped]
            layer.formed = any(layer.dropout[MAPS.index(name)] for name in ("key", "value"))

    def batch(
        self, ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"], read: Literal["first", "all"], backward: bool
    ) -> Batch:
        """A batch, ready to go through.

        Raises:
            IndexError: see :meth:`Fused.require_known`.
            RuntimeError: dropout is drawn for one batch alone, and one has gone before.
        """
        self.fused.require_known(ids, lengths)
        if self.used and self.dropout:
            raise RuntimeError("dropout is drawn for one batch: draw anew for the next")
        self.used = True
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        return Batch(
            self, ids[inside].long(), F.pad(lengths.cumsum(0), (1, 0)), read == "first", backward and self.backward
        )

    def states(
        self, ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"], read: Literal["first", "all"]
    ) -> Float[Tensor, "k b s d"]:
        """The last states, as :func:`loralet.models.encoder.encode` gives them, and torch's way back to the adapters' matrices."""
        batch = self.batch(ids, lengths, read, torch.is_grad_enabled())
        matrices = (matrix for stack in self.stacks.values() for matrix in (stack.a, stack.b)) if batch.backward else ()
        states: Tensor = _Encode.apply(batch, *matrices)  # type: ignore[no-untyped-call]  # torch's own
        if read == "first":
            return states[:, :, None]
        inside = torch.arange(ids.shape[1]) < lengths[:, None]
        padded = states.new_zeros(states.shape[0], ids.numel(), states.shape[-1])
        return padded.index_copy(1, inside.flatten().nonzero()[:, 0], states).view(-1, *ids.shape, states.shape[-1])

    @property
    def dropout_rank(self) -> int:
        """The padded rank of the adapters with dropout, which is the same for all; 0 where there are none."""
        return max((own.padded for own in self.dropout.values() if own.sets), default=0)

    def gradients(self) -> dict[str, Tensor]:
        """Room for each adapted map's gradient, ``[parts * k * o * d]``, and the layers pointing to it."""
        sizes = {
            name: PARTS * self.sets * math.prod(self.fused.shape.linear_sizes(name.split(".")[2]))
            for name in self.stacks
        }
        grads = dict(zip(sizes, torch.split(torch.empty(sum(sizes.values())), list(sizes.values())), strict=True))
        for name, grad in grads.items():
            _, layer, target = name.split(".")
            self.layers[int(layer)].grad[MAPS.index(target)] = grad.data_ptr()
        return grads

    def low_rank_gradients(self, grads: dict[str, Tensor], into: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """The gradients of A and B of each adapted map, into tensors of their sizes that lie dense in their last two axes."""
        for name, (grad_a, grad_b) in into.items():
            d, o = self.fused.shape.linear_sizes(name.split(".")[2])
            places = (grad_a, grad_a.stride(0), grad_b, grad_b.stride(0))
            _call(
                "low_rank_gradients",
                grad_a,
                ctypes.byref(self.low[name]),
                grads[name],
                PARTS,
                self.sets,
                o,
                d,
                *places,
                torch.get_num_threads(),
            )
            if name in self.dropout:
                self.dropout[name].put_gradients(grad_a, grad_b)


def _low_rank(stack: Stack) -> _LowRank:
    """What the kernels read; it points into the stack's tensors, whose last two axes lie dense."""
    a, b = stack.a, stack.b
    if (
        a.stride()[1:] != (a.shape[2], 1)
        or b.stride()[1:] != (b.shape[2], 1)
        or {a.dtype, b.dtype, stack.scale.dtype} != {torch.float32}
    ):
        raise ValueError("the matrices of an adapter must be fp32, and lie dense in their last two axes")
    return _LowRank(a.data_ptr(), b.data_ptr(), stack.scale.data_ptr(), a.stride(0), b.stride(0), a.shape[1])


def _quiet(stack: Stack, dropout: MapDropout | None) -> Stack:
    """The stack without the products of the adapters that are computed beside the weights."""
    if dropout is None or not dropout.sets:
        return stack
    return Stack(stack.a, stack.b, stack.scale.index_fill(0, torch.tensor(dropout.sets), 0.0))


def _own(adapted: list[bool], live: bool) -> tuple[list[bool], bool]:
    """Which of a layer's tensors are each adapter's own (query, key, value, context, attended, inner, out), and whether its output is."""
    query, key, value = (live or own for own in adapted[:3])
    context = query or key or value
    attended = context or adapted[3]
    inner = attended or adapted[4]
    out = inner or adapted[5]
    return [query, key, value, context, attended, inner, out], out


@dataclass
class Batch:
    """One batch on its way through the kernels, forth and, where ``backward``, back.

    Args:
        adapted: the encoder.
        ids: token ids of all rows, one after another.
        starts: where each row begins, one more than the rows.
        first: whether the last layer computes only what the first tokens' states need.
        backward: whether a backward pass follows.
    """

    adapted: Adapted
    ids: Tensor
    starts: Tensor
    first: bool
    backward: bool
    kept: tuple[Tensor, Tensor] | None = None

    def go_forward(self) -> Float[Tensor, "k n d"]:
        """The last states of the first tokens, or of all, one after another."""
        x = self.input()
        encoder = self.encoder(x)
        memory = self.adapted.fused.memory(_call("encoder_bytes", x, ctypes.byref(encoder))) if self.backward else None
        out = x.new_empty(encoder.sets, encoder.rows if self.first else x.shape[0], x.shape[1])
        _call("encoder_forward", x, ctypes.byref(encoder), out, memory)
        self.kept = None if memory is None else (x, memory)
        return out

    def go_backward(self, grad: Float[Tensor, "k n d"], into: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """From the gradient of the last states that of each adapter's A and B, written into the tensors given.

        Raises:
            RuntimeError: it has been done before, and what the forward pass kept is given back.
        """
        if self.kept is None:
            raise RuntimeError(
                "the memory of this forward pass has been given back: it can be gone through backwards only once"
            )
        (x, memory), self.kept = self.kept, None
        grads = self.adapted.gradients()
        encoder = self.encoder(x)
        _call("encoder_backward", x, ctypes.byref(encoder), grad.contiguous(), memory, PARTS)
        self.adapted.fused.free.append(memory)
        self.adapted.low_rank_gradients(grads, into)

    def encoder(self, x: Tensor) -> _Encoder:
        """The description that the kernels read; it points into this batch and into ``x``."""
        fused, shape = self.adapted.fused, self.adapted.fused.shape
        own = not shape.embedding_width
        tables = [t.data_ptr() for t in (self.ids, fused.words, fused.places, fused.norm)] if own else [None] * 4
        return _Encoder(
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            feed_forward=shape.feed_forward,
            sets=self.adapted.sets,
            rows=len(self.starts) - 1,
            threads=torch.get_num_threads(),
            first=self.first,
            backward=self.backward,
            lowest=self.adapted.lowest,
            chunk=_stretch(len(self.ids)),
            dropout_rank=self.adapted.dropout_rank,
            starts=self.starts.data_ptr(),
            **dict(zip(("ids", "words", "places", "embedding_norm"), tables, strict=True)),
            x=x.data_ptr(),
            layer=ctypes.addressof(self.adapted.layers),
            epsilon=shape.epsilon,
        )

    def input(self) -> Tensor:
        """Room for the embeddings ``[tokens d]``, which the kernels fill; or the embeddings themselves where a projection follows them."""
        weights, shape = self.adapted.fused.weights, self.adapted.fused.shape
        if not shape.embedding_width:
            return weights["embeddings.word"].new_empty(len(self.ids), shape.width)
        lengths = self.starts.diff()
        positions = torch.arange(len(self.ids)) - self.starts[:-1].repeat_interleave(lengths)
        return embed(weights, shape, self.ids, positions).contiguous()


def _stretch(tokens: int) -> int:
    """Tokens of a chunk, so that the parts get equally many chunks of about the same size."""
    chunks = PARTS * max(1, round(tokens / (PARTS * CHUNK_TOKENS)))
    return max(1, -(-tokens // chunks))


def _call(name: str, like: Tensor, *arguments: Any) -> Any:
    found = kernels(like)
    assert found is not None
    return found[name](*pointers(*arguments))


class _Encode(torch.autograd.Function):
    """A batch as torch differentiates it: the matrices A and B of each adapted map in turn are its inputs."""

    @staticmethod
    def forward(ctx: Any, batch: Batch, *matrices: Tensor) -> Tensor:
        ctx.batch, ctx.sizes = batch, [matrix.shape for matrix in matrices]
        states = batch.go_forward()
        ctx.save_for_backward(
            *batch.kept or ()
        )  # the batch keeps them itself; this is for whoever asks torch what is kept
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = [torch.empty(size) for size in ctx.sizes]
        ctx.batch.go_backward(
            grad, dict(zip(ctx.batch.adapted.stacks, zip(grads[::2], grads[1::2], strict=True), strict=True))
        )
        return None, *grads
