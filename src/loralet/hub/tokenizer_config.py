"""The tokenizer_config.json that transformers reads in addition to tokenizer.json."""

from __future__ import annotations

import json

from tokenizers import Tokenizer

SPECIAL = {
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Special tokens of WordPiece and byte-level vocabularies, by their names in transformers."""


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens in the vocabulary, by their names in transformers.

    A vocabulary may have both kinds (MPNet). Then the kind that the tokenizer adds to a text has precedence.
    """
    first = tokenizer.encode("").tokens[:1]
    preferred = 1 if first == [SPECIAL["cls_token"][1]] else 0
    found: dict[str, str] = {}
    for role, tokens in SPECIAL.items():
        for token in (tokens[preferred], tokens[1 - preferred]):
            if role not in found and tokenizer.token_to_id(token) is not None:
                found[role] = token
    unknown = json.loads(tokenizer.to_str())["model"].get("unk_token")
    return found | ({"unk_token": unknown} if unknown else {})


def tokenizer_config(tokenizer: Tokenizer, longest: int) -> dict[str, object]:
    """The content of a tokenizer_config.json.

    Args:
        tokenizer: the tokenizer that is saved as tokenizer.json.
        longest: largest number of tokens of a text, special tokens included; transformers truncates to it.
    """
    described = json.loads(tokenizer.to_str())
    config: dict[str, object] = special_tokens(tokenizer) | {"model_max_length": longest}
    normalizer = described.get("normalizer") or {}
    if (
        described["model"]["type"] == "WordPiece"
        and normalizer.get("type") == "BertNormalizer"
        and config.get("cls_token") == SPECIAL["cls_token"][0]
    ):
        options = {
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
        return config | options | {"tokenizer_class": "BertTokenizer"}
    return config | {"tokenizer_class": "PreTrainedTokenizerFast"}
