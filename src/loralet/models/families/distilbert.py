"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, with other names."""

from loralet.models.family import (
    BERT_EMBEDDINGS,
    Config,
    Family,
    HeadNames,
    number,
    require_absolute,
    require_heads,
    whole,
)
from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable


def table(config: Config) -> EncoderTable:
    width, heads = whole(config, "dim"), whole(config, "n_heads")
    require_heads(width, heads, "dim", "n_heads")
    require_absolute(config)
    return EncoderTable(
        layers=whole(config, "n_layers"),
        width=width,
        heads=heads,
        feed_forward=whole(config, "hidden_dim"),
        vocabulary=whole(config, "vocab_size"),
        positions=whole(config, "max_position_embeddings"),
        token_types=0,
        activation=str(config.get("activation", "gelu")),
        epsilon=number(config, "layer_norm_eps", 1e-12),
    )


FAMILY = Family(
    model_type="distilbert",
    prefix="distilbert.",
    transformers="DistilBert",
    embeddings=BERT_EMBEDDINGS,
    layer="transformer.layer.{}",
    parts={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention-output": "attention.out_lin",
        "intermediate": "ffn.lin1",
        "output": "ffn.lin2",
        "attention-norm": "sa_layer_norm",
        "output-norm": "output_layer_norm",
    },
    table=table,
    head=HeadNames("pre_classifier", "classifier", Pooling("relu")),
)
