"""Small random models, and batches for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification

from loralet.hub.backbone import Backbone, load_backbone

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"w{i}" for i in range(69)),
]
CLASSES = 4


def bert_config(**changes: object) -> BertConfig:
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "num_labels": CLASSES,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**(sizes | changes))


@dataclass(frozen=True)
class Pair:
    """The same model in transformers and in loralet."""

    theirs: BertForSequenceClassification
    ours: Backbone
    folder: Path


def make_pair(folder: Path, seed: int = 0, **changes: object) -> Pair:
    """A random BertForSequenceClassification, saved to a folder, and the backbone loaded from it."""
    torch.manual_seed(seed)
    theirs = BertForSequenceClassification(bert_config(**changes))
    with torch.no_grad():
        for parameter in theirs.parameters():  # initial biases and norms would hide a swapped name
            parameter.add_(0.05 * torch.randn_like(parameter))
    theirs.eval().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return Pair(theirs, load_backbone(str(folder)), folder)


def batch(rows: int = 8, longest: int = 12, seed: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, lengths, attention mask and labels of random rows of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, longest + 1, (rows,), generator=generator)
    lengths[0] = longest
    mask = torch.arange(longest) < lengths[:, None]
    ids = torch.randint(5, len(VOCABULARY), (rows, longest), generator=generator) * mask
    return ids, lengths, mask.long(), torch.randint(0, CLASSES, (rows,), generator=generator)
