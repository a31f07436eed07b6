"""MPNet (Song et al. 2020): BERT without token types, with a relative position bias and RoBERTa's positions."""

from loralet.models.family import (
    BERT_EMBEDDINGS,
    Config,
    Family,
    HeadNames,
    SpecialTokens,
    bert_like,
    whole,
)
from loralet.models.table import EncoderTable

FIRST_POSITION = 2
"""Row of the position table that the first token reads; transformers fixes the padding id at 1, whatever the config."""
BUCKETS = 32
"""transformers computes this number of buckets, whatever the config."""


def table(config: Config) -> EncoderTable:
    buckets = whole(config, "relative_attention_num_buckets", BUCKETS)
    if buckets != BUCKETS:
        raise ValueError(f"relative_attention_num_buckets is {buckets}; transformers computes {BUCKETS} in any case")
    return bert_like(config, first_position=FIRST_POSITION, relative_buckets=buckets)


FAMILY = Family(
    model_type="mpnet",
    prefix="mpnet.",
    transformers="MPNet",
    embeddings=BERT_EMBEDDINGS | {"attention.relative-bias": "encoder.relative_attention_bias.weight"},
    layer="encoder.layer.{}",
    parts={
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention-output": "attention.attn.o",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "attention-norm": "attention.LayerNorm",
        "output-norm": "output.LayerNorm",
    },
    table=table,
    head=HeadNames("classifier.dense", "classifier.out_proj"),
    tokens=SpecialTokens("<s>", "</s>", "<pad>", "[UNK]", "<mask>"),
)
