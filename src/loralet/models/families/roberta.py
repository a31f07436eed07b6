"""RoBERTa (Liu et al. 2019): BERT with positions after the padding id, and a byte-level tokenizer."""

from loralet.models.family import (
    BERT_EMBEDDINGS,
    BERT_LAYER,
    BERT_PARTS,
    ROBERTA_TOKENS,
    Config,
    Family,
    HeadNames,
    bert_like,
    whole,
)
from loralet.models.table import EncoderTable


def table(config: Config) -> EncoderTable:
    first = whole(config, "pad_token_id", 1, least=0) + 1
    return bert_like(config, token_types=whole(config, "type_vocab_size", 2), first_position=first)


FAMILY = Family(
    model_type="roberta",
    prefix="roberta.",
    transformers="Roberta",
    embeddings=BERT_EMBEDDINGS,
    layer=BERT_LAYER,
    parts=BERT_PARTS,
    table=table,
    head=HeadNames("classifier.dense", "classifier.out_proj"),
    tokens=ROBERTA_TOKENS,
)
