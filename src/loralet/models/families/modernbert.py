"""ModernBERT (Warner et al. 2024) and Ettin: pre-norm, GeGLU, rotary positions, local attention, no biases."""

from loralet.models.family import Config, Family, HeadNames, SpecialTokens, number, require_heads, whole
from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable

HEAD = Pooling("gelu", bias=False, norm=True)
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def table(config: Config) -> EncoderTable:
    width, heads, layers = (whole(config, k) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    require_heads(width, heads, "hidden_size", "num_attention_heads")
    for key in ("attention_bias", "mlp_bias", "norm_bias"):
        if config.get(key, False):
            raise ValueError(f"{key} is {config[key]!r}; only ModernBERT without biases is supported")
    epsilon = number(config, "norm_eps", HEAD.epsilon)
    if epsilon != HEAD.epsilon:
        raise ValueError(
            f"norm_eps is {epsilon:g}; only {HEAD.epsilon:g}, that of the classification head, is supported"
        )
    return EncoderTable(
        layers=layers,
        width=width,
        heads=heads,
        feed_forward=whole(config, "intermediate_size"),
        vocabulary=whole(config, "vocab_size"),
        positions=whole(config, "max_position_embeddings"),
        token_types=0,
        activation=str(config.get("hidden_activation", "gelu")),
        epsilon=epsilon,
        norm_first=True,
        linear_bias=False,
        norm_bias=False,
        fused_attention=True,
        gated=True,
        rotary_base=_rotary_base(config, GLOBAL, "global_rope_theta", 160_000.0),
        local_rotary_base=_rotary_base(config, LOCAL, "local_rope_theta", 10_000.0),
        local_window=whole(config, "local_attention", 128) // 2,
        global_every=_global_every(config, layers),
    )


def _rotary_base(config: Config, kind: str, older_key: str, default: float) -> float:
    """The base of rotary positions, from the key of transformers 5 or that of the published checkpoints."""
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict):
        if config.get(older_key, default) is None:  # the local base of a checkpoint that has the global one everywhere
            return _rotary_base(config, GLOBAL, "global_rope_theta", default)
        return number(config, older_key, default)
    own = parameters.get(kind)
    if not isinstance(own, dict) or own.get("rope_type", "default") != "default":
        raise ValueError(f"rope_parameters.{kind} is {own!r}; only the default rotary positions are supported")
    return number(own, "rope_theta", default)


def _global_every(config: Config, layers: int) -> int:
    """Interval of the layers with global attention, counted from the first layer."""
    kinds = config.get("layer_types")
    if not isinstance(kinds, list):
        return whole(config, "global_attn_every_n_layers", 3)
    if len(kinds) == layers:
        every = next((i for i in range(1, layers) if kinds[i] == GLOBAL), layers)
        if kinds == [LOCAL if i % every else GLOBAL for i in range(layers)]:
            return every
    raise ValueError(
        f"layer_types is {str(kinds)[:200]}; global attention in the first and then every n-th layer is expected"
    )


FAMILY = Family(
    model_type="modernbert",
    prefix="model.",
    transformers="ModernBert",
    embeddings={
        "embeddings.word": "embeddings.tok_embeddings.weight",
        "embeddings.norm.weight": "embeddings.norm.weight",
        "final-norm.weight": "final_norm.weight",
    },
    layer="layers.{}",
    parts={
        "query-key-value": "attn.Wqkv",
        "attention-output": "attn.Wo",
        "intermediate": "mlp.Wi",
        "output": "mlp.Wo",
        "attention-norm": "attn_norm",
        "feed-forward-norm": "mlp_norm",
    },
    table=table,
    head=HeadNames("head.dense", "classifier", HEAD, norm="head.norm"),
    pooling=HEAD,
    tokens=SpecialTokens("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"),
    hf_config={"classifier_pooling": "cls", "classifier_bias": False, "classifier_activation": "gelu"},
)
