"""The layer table of an encoder: sizes, switches, and the data flow of a layer.

The forward pass (:mod:`loralet.models.forward`), the memory estimate, the set of per-adapter values, and the support
check of backends are derived from this table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields

ACTIVATION_NAMES = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
"""Activations of the feed-forward layer, see :data:`loralet.models.forward.ACTIVATIONS`."""
FUSED = "query-key-value"
"""Name of the linear layer that computes query, key and value in one product."""


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer of an encoder layer.

    Args:
        name: name in ``--targets``.
        reads: input of the layer: ``input``, ``context``, ``attended`` or ``inner``.
        d_in, d_out: number of input and output features.
        bias: whether it has a bias.
    """

    name: str
    reads: str
    d_in: int
    d_out: int
    bias: bool = True


@dataclass(frozen=True)
class Ownership:
    """The per-adapter values of one layer of a pack.

    Args:
        own: values that are computed per adapter, of ``query``, ``key``, ``value``, ``context``, ``attended``,
            ``inner`` and ``output``. The other values are shared by all adapters and computed once.
        input: whether the layer's input is per-adapter.
    """

    own: frozenset[str]
    input: bool


@dataclass(frozen=True)
class EncoderTable:
    """Sizes and switches of an encoder.

    Args:
        layers, width, heads, feed_forward, vocabulary: sizes. The heads divide the width.
        positions: rows of the position table; with rotary positions, the longest text in tokens.
        token_types: rows of the token type table; 0: none.
        embedding_width: width of the word embeddings before a projection (ELECTRA); 0: the encoder's width.
        first_position: row of the position table for the first token (RoBERTa, MPNet: 2).
        activation: activation of the feed-forward layer, see :data:`loralet.models.forward.ACTIVATIONS`.
        epsilon: epsilon of the layer norms.
        norm_first: layer norms precede attention and feed-forward (pre-norm), instead of following the residual sum
            (post-norm). The first layer has no attention norm, and a final norm follows the last layer.
        linear_bias, norm_bias: whether linear layers and layer norms have biases.
        fused_attention: one linear layer computes query, key and value.
        gated: the feed-forward layer is ``activation(a) * b`` of two halves (GeGLU, Shazeer 2020).
        rotary_base: base of rotary positions (Su et al. 2021) in layers with global attention; 0: a position table.
        local_rotary_base: the same in layers with local attention.
        local_window: tokens on each side in local attention; 0: all attention is global.
        global_every: every ``global_every``-th layer, starting with the first, has global attention; the others have
            local attention.
        relative_buckets: rows of the relative position bias (MPNet); 0: none.
    """

    layers: int
    width: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int = 2
    embedding_width: int = 0
    first_position: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-12
    norm_first: bool = False
    linear_bias: bool = True
    norm_bias: bool = True
    fused_attention: bool = False
    gated: bool = False
    rotary_base: float = 0.0
    local_rotary_base: float = 0.0
    local_window: int = 0
    global_every: int = 1
    relative_buckets: int = 0

    @property
    def longest(self) -> int:
        """Maximum text length in tokens."""
        return self.positions - self.first_position

    @property
    def linears(self) -> tuple[LinearLayer, ...]:
        """The linear layers of one encoder layer, in the order of the forward pass."""
        d, f, bias = self.width, self.feed_forward, self.linear_bias
        if self.fused_attention:
            projections = [LinearLayer(FUSED, "input", d, 3 * d, bias)]
        else:
            projections = [LinearLayer(name, "input", d, d, bias) for name in ("query", "key", "value")]
        return (
            *projections,
            LinearLayer("attention-output", "context", d, d, bias),
            LinearLayer("intermediate", "attended", d, 2 * f if self.gated else f, bias),
            LinearLayer("output", "inner", f, d, bias),
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the linear layers, as in ``--targets``."""
        return tuple(linear.name for linear in self.linears)

    def linear(self, name: str) -> LinearLayer:
        """A linear layer by name or full name (``layers.0.query``).

        Raises:
            KeyError: no linear layer has this name.
        """
        bare = name.rpartition(".")[2]
        for linear in self.linears:
            if linear.name == bare:
                return linear
        raise KeyError(name)

    def is_local(self, layer: int) -> bool:
        """Whether a layer's attention reads only neighbouring tokens."""
        return bool(self.local_window) and layer % self.global_every != 0

    @property
    def norms(self) -> tuple[str, str]:
        """Names of the two layer norms of an encoder layer."""
        return ("attention-norm", "feed-forward-norm" if self.norm_first else "output-norm")

    def has_norm(self, layer: int, norm: str) -> bool:
        """Whether a layer has this norm; a pre-norm encoder has no attention norm in its first layer."""
        return not (self.norm_first and layer == 0 and norm == "attention-norm")

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all tensors of the encoder, without the pooler."""
        d, e = self.width, self.embedding_width or self.width
        shapes: dict[str, tuple[int, ...]] = {"embeddings.word": (self.vocabulary, e)}
        if not self.rotary_base:
            shapes["embeddings.position"] = (self.positions, e)
        if self.token_types:
            shapes["embeddings.type"] = (self.token_types, e)
        shapes |= self._norm("embeddings.norm", e)
        if self.embedding_width:
            shapes |= {"embeddings.projection.weight": (d, e), "embeddings.projection.bias": (d,)}
        if self.relative_buckets:
            shapes["attention.relative-bias"] = (self.relative_buckets, self.heads)
        for i in range(self.layers):
            shapes |= self._layer(i)
        if self.norm_first:
            shapes |= self._norm("final-norm", d)
        return shapes

    def _layer(self, i: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for linear in self.linears:
            shapes[f"layers.{i}.{linear.name}.weight"] = (linear.d_out, linear.d_in)
            if linear.bias:
                shapes[f"layers.{i}.{linear.name}.bias"] = (linear.d_out,)
        for norm in self.norms:
            if self.has_norm(i, norm):
                shapes |= self._norm(f"layers.{i}.{norm}", self.width)
        return shapes

    def _norm(self, name: str, width: int) -> dict[str, tuple[int, ...]]:
        kinds = ("weight", "bias") if self.norm_bias else ("weight",)
        return {f"{name}.{kind}": (width,) for kind in kinds}

    def ownership(self, adapted: Collection[str]) -> Iterator[Ownership]:
        """Yield the per-adapter values of each layer.

        Args:
            adapted: full names of the linear layers that an adapter of the pack covers.
        """
        live = False
        for i in range(self.layers):
            has = {linear.name: f"layers.{i}.{linear.name}" in adapted for linear in self.linears}
            projections = ("query", "key", "value")
            own = {name: live or has.get(name, has.get(FUSED, False)) for name in projections}
            own["context"] = any(own[name] for name in projections)
            own["attended"] = own["context"] or has["attention-output"]
            own["inner"] = own["attended"] or has["intermediate"]
            own["output"] = own["inner"] or has["output"]
            yield Ownership(frozenset(name for name, flag in own.items() if flag), live)
            live = own["output"]


def unknown_fields(table: EncoderTable, known: Collection[str]) -> str | None:
    """The reason why a backend that knows only these fields must reject the table; None if it knows all."""
    unknown = [field.name for field in fields(table) if field.name not in known]
    return f"the encoder's table has {', '.join(unknown)}, which it does not know" if unknown else None
