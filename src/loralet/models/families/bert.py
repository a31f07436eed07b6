"""BERT (Devlin et al. 2019)."""

from loralet.models.family import BERT_EMBEDDINGS, BERT_LAYER, BERT_PARTS, Config, Family, HeadNames, bert_like, whole
from loralet.models.table import EncoderTable


def table(config: Config) -> EncoderTable:
    return bert_like(config, token_types=whole(config, "type_vocab_size", 2))


FAMILY = Family(
    model_type="bert",
    prefix="bert.",
    transformers="Bert",
    embeddings=BERT_EMBEDDINGS,
    layer=BERT_LAYER,
    parts=BERT_PARTS,
    table=table,
    head=HeadNames("bert.pooler.dense", "classifier", in_encoder=True),
)
