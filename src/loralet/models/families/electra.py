"""ELECTRA (Clark et al. 2020): BERT with word embeddings that may be narrower than the encoder."""

from loralet.models.family import BERT_EMBEDDINGS, BERT_LAYER, BERT_PARTS, Config, Family, HeadNames, bert_like, whole
from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable


def table(config: Config) -> EncoderTable:
    width = whole(config, "embedding_size", whole(config, "hidden_size"))
    return bert_like(config, token_types=whole(config, "type_vocab_size", 2), embedding_width=width)


FAMILY = Family(
    model_type="electra",
    prefix="electra.",
    transformers="Electra",
    embeddings=BERT_EMBEDDINGS
    | {
        "embeddings.projection.weight": "embeddings_project.weight",
        "embeddings.projection.bias": "embeddings_project.bias",
    },
    layer=BERT_LAYER,
    parts=BERT_PARTS,
    table=table,
    head=HeadNames("classifier.dense", "classifier.out_proj", Pooling("gelu")),
)
