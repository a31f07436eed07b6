"""The tokenizer_config.json that transformers reads in addition to tokenizer.json."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Special tokens of WordPiece and byte-level vocabularies, by their names in transformers."""


def tokenizer_config(tokenizer: Tokenizer, longest: int) -> dict[str, Any]:
    """The content of a tokenizer_config.json.

    Args:
        tokenizer: the tokenizer that is saved as tokenizer.json.
        longest: largest number of tokens of a text, special tokens included; transformers truncates to it.
    """
    described = json.loads(tokenizer.to_str())
    found = {
        role: [token for token in tokens if tokenizer.token_to_id(token) is not None]
        for role, tokens in SPECIAL.items()
    }
    config: dict[str, Any] = {role: tokens[0] for role, tokens in found.items() if tokens} | {
        "model_max_length": longest
    }
    normalizer = described.get("normalizer") or {}
    if described["model"]["type"] == "WordPiece" and normalizer.get("type") == "BertNormalizer":
        options = {
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
        return config | options | {"tokenizer_class": "BertTokenizer"}
    return config | {"tokenizer_class": "PreTrainedTokenizerFast"}
