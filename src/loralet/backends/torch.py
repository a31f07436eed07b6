"""The torch backend: :mod:`loralet.models.forward` with autograd, on a CPU or a GPU.

On a CPU, two halves of a batch are computed in parallel, each on one thread. The tensors are so small that
parallelising every operation costs more in synchronisation than it saves (measured in dev/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.adapters.base import Stack, batched_linear
from loralet.adapters.dropout import Dropout
from loralet.adapters.pack import Pack
from loralet.adapters.registry import METHODS
from loralet.backends.base import AdamWStep, Logits, RowLosses, memory_errors
from loralet.backends.batch import Batch
from loralet.backends.info import BackendInfo, BackendName
from loralet.backends.shards import together
from loralet.cpu import AMD, cpu_features, cpu_vendor
from loralet.models.forward import ACTIVATIONS, Attention, Linear, Padded, Weights, attention, encode, frozen
from loralet.models.heads import classify, first_token, mean_over_tokens, pool
from loralet.models.table import EncoderTable, unknown_fields
from loralet.runtime import apply_threads

apply_threads()

SHARDS = 2
"""Number of parts of a batch on a CPU."""
MULTIPLE = 8
"""Token counts are rounded up to a multiple of this: the matrix library caches half a megabyte per tensor size."""
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
"""Arithmetic types and their names in ``--precision``."""
KNOWN = {
    "layers",
    "width",
    "heads",
    "feed_forward",
    "vocabulary",
    "positions",
    "token_types",
    "embedding_width",
    "first_position",
    "activation",
    "epsilon",
    "norm_first",
    "linear_bias",
    "norm_bias",
    "fused_attention",
    "gated",
    "rotary_base",
    "local_rotary_base",
    "local_window",
    "global_every",
    "relative_buckets",
}
"""Fields of the layer table that the forward pass reads."""


class TorchBackend:
    """See :class:`loralet.backends.base.Backend`.

    Args:
        device: the device; None: the first GPU if there is one, else the CPU.
    """

    name: BackendName = "torch"

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def attention(self) -> Attention:
        return attention

    @property
    def parts(self) -> int:
        """Parts of a batch that are computed in parallel; one on a GPU, which is limited by kernel launches."""
        return SHARDS if self.device.type == "cpu" else 1

    @property
    def fastest_dtype(self) -> torch.dtype:
        if self.device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            has = cpu_features()
            bf16 = "amx-bf16" in has or ("avx512bf16" in has and cpu_vendor() == AMD)
        return torch.bfloat16 if bf16 else torch.float32

    def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
        device = "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        return BackendInfo(self.name, device, "", DTYPES[dtype], torch.get_num_threads(), reason)

    def supports(self, table: EncoderTable, dtype: torch.dtype, method: str = "lora") -> str | None:
        if dtype not in DTYPES:
            return f"it computes in fp32 or bf16, not in {dtype}"
        if method not in METHODS:
            return f"it does not know the adapter method {method}"
        if table.activation not in ACTIVATIONS:
            return f"activation {table.activation!r} is not one of {', '.join(ACTIVATIONS)}"
        return unknown_fields(table, KNOWN)

    def load(self, weights: Weights, table: EncoderTable, dtype: torch.dtype) -> TorchEncoder:
        reason = self.supports(table, dtype)
        if reason:
            raise ValueError(f"the torch backend cannot compute this encoder: {reason}")
        return TorchEncoder(self, {name: t.to(self.device, dtype) for name, t in weights.items()}, table)

    def map(self, function: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Iterator[Tensor]:
        every = list(batches)
        shards = [every[i :: self.parts] for i in range(self.parts)]
        done = together([partial(_each, function, shard) for shard in shards if shard])
        yield from (done[i % self.parts][i // self.parts] for i in range(len(every)))

    @torch.no_grad()
    def adamw(
        self,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        moments: tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]],
        course: AdamWStep,
        finite: Bool[Tensor, "k"],
    ) -> None:
        norms = gradient.norm(dim=1, keepdim=True)
        finite &= norms[:, 0].isfinite()
        if course.clip:
            gradient = gradient * (course.clip / (norms + 1e-6)).clamp(max=1.0)  # torch's clip_grad_norm_, row by row
        first = moments[0].lerp(gradient, 1 - course.beta1)
        second = (moments[1] * course.beta2).addcmul_(gradient, gradient, value=1 - course.beta2)
        denominator = (second.sqrt() / course.correction2).add_(course.epsilon)
        lr = course.lr[:, None] if course.lr_factors is None else course.lr[:, None] * course.lr_factors
        moved = parameters * (1 - lr * course.decay) - lr / course.correction1 * first / denominator
        for old, new in ((parameters, moved), (moments[0], first), (moments[1], second)):
            old.copy_(torch.where(finite[:, None], new, old))


def _each(function: Callable[[Batch], Tensor], batches: list[Batch]) -> list[Tensor]:
    return [function(batch) for batch in batches]


class TorchEncoder:
    """See :class:`loralet.backends.base.LoadedEncoder`."""

    def __init__(self, backend: TorchBackend, weights: Weights, table: EncoderTable) -> None:
        self.backend, self.weights, self.table = backend, weights, table

    def program(self, pack: Pack) -> TorchProgram:
        return TorchProgram(pack, self.weights, self.backend.parts, self.backend.attention)


class TorchProgram:
    """See :class:`loralet.backends.base.Program`.

    Args:
        pack: the parameter layout.
        weights: the frozen tensors, in the arithmetic type.
        parts: number of parts of a batch that are computed in parallel.
        attend: the attention to use.
    """

    def __init__(self, pack: Pack, weights: Weights, parts: int = 1, attend: Attention = attention) -> None:
        self.pack, self.weights, self.parts, self.attend = pack, weights, parts, attend
        self.device = weights["embeddings.word"].device

    @torch.no_grad()
    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        tensors = self.pack.split(parameters.clone())  # the optimiser changes them in place
        weights = self._trained(tensors)
        linear = self._merged(weights, self.pack.stacks(tensors))

        @torch.no_grad()
        def forward(batch: Batch) -> Float[Tensor, "k b c"]:
            with memory_errors():
                return self._logits(weights, tensors, linear, batch, None).cpu()

        return forward

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        shares, count = batch.shares, min(self.parts, len(batch))
        numbers = [torch.arange(i, len(batch), count) for i in range(count)]
        tasks = [partial(self._part, parameters, batch.take(n), shares[:, n], row_losses, step) for n in numbers]
        with memory_errors():
            parts = together(tasks)
        losses, gradient = (sum(x[1:], x[0]) for x in zip(*parts, strict=True))
        return losses, gradient

    def _part(
        self,
        parameters: Float[Tensor, "k n"],
        batch: Batch,
        shares: Float[Tensor, "j b"],
        row_losses: RowLosses,
        step: int | None,
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        leaf = parameters.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.differentiable_logits(leaf, batch, step)
        assert batch.targets is not None
        losses, gradient = row_losses(logits.detach(), batch.targets.to(logits.device))
        shares = shares.to(logits.device)
        (whole,) = torch.autograd.grad(logits, leaf, gradient * shares[..., None])
        return (losses * shares).sum(-1), whole

    def differentiable_logits(
        self, parameters: Float[Tensor, "k n"], batch: Batch, step: int | None = None
    ) -> Float[Tensor, "k b c"]:
        """Logits on the device of the weights, differentiable with respect to the parameters."""
        tensors = self.pack.split(parameters)
        weights, stacks = self._trained(tensors), self.pack.stacks(tensors)
        dropout = None
        if step is not None:
            dropout = Dropout(self.pack.shape.table, self.pack.adapters, step, self.pack.shape.head_dropout)
        linear = self._merged(weights, stacks)
        if dropout is not None and any(map(dropout.applies, stacks)):
            linear = self._dropped(weights, stacks, dropout, batch, linear)
        return self._logits(weights, tensors, linear, batch, dropout)

    def _trained(self, tensors: dict[str, Tensor]) -> Weights:
        """The encoder's weights: frozen, or, in full fine-tuning, the trained ones in the arithmetic type."""
        if not self.pack.shape.full:
            return self.weights
        dtype = self.weights["embeddings.word"].dtype
        return self.weights | {name: t[0].to(dtype) for name, t in tensors.items() if name in self.weights}

    def _merged(self, weights: Weights, stacks: dict[str, Stack]) -> Linear:
        """Linear layers with each adapter's effective weight, computed once. Exact without dropout."""
        plain, method = frozen(weights), self.pack.method
        effective = {name: method.effective(weights[f"{name}.weight"], stack) for name, stack in stacks.items()}

        def apply(name: str, x: Tensor) -> Tensor:
            if name not in effective:
                return plain(name, x)
            return batched_linear(x, effective[name], weights.get(f"{name}.bias"))

        return apply

    def _dropped(
        self, weights: Weights, stacks: dict[str, Stack], dropout: Dropout, batch: Batch, merged: Linear
    ) -> Linear:
        """Linear layers whose adapter branch is computed separately, on inputs with dropout."""

        def apply(name: str, x: Tensor) -> Tensor:
            if name not in stacks or not dropout.applies(name):
                return merged(name, x)
            tokens = batch.token_numbers(x.shape[2]).to(x.device)
            dropped = x * dropout.factors(name, tokens, x.shape[-1]).to(x.dtype)
            weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
            return self.pack.method.branch(x, dropped, weight, bias, stacks[name])

        return apply

    def _logits(
        self, weights: Weights, tensors: dict[str, Tensor], linear: Linear, batch: Batch, dropout: Dropout | None
    ) -> Float[Tensor, "k b c"]:
        shape = self.pack.shape
        padded = batch.padded(MULTIPLE, shape.table.longest, self.device)
        states = encode(weights, shape.table, padded, linear, shape.read, self.attend)
        features = self._features(weights, tensors, states, padded)
        factors = None if dropout is None else dropout.head_factors(batch.numbers().to(self.device), shape.table.width)
        if factors is not None:
            features = features * factors
        return classify(features, tensors["classifier.weight"], tensors["classifier.bias"])

    def _features(
        self, weights: Weights, tensors: dict[str, Tensor], states: Float[Tensor, "j b s d"], padded: Padded
    ) -> Float[Tensor, "i b d"]:
        if self.pack.shape.head == "mean":
            return mean_over_tokens(states, padded.lengths)
        names = self.pack.shape.pooling.tensors(self.pack.shape.table.width)
        pooler = {name: tensors[name] if name in tensors else weights[name][None] for name in names}
        return pool(first_token(states), pooler, self.pack.shape.pooling)
