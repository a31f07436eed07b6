"""Settings of a tokenizer in tokenizer_config.json and added_tokens.json, applied as transformers applies them.

transformers builds the normaliser of the tokenizers of BERT and MPNet, and the pre-tokenizer of RoBERTa's, from
tokenizer_config.json, with the defaults of their classes for keys that are missing. tokenizer.json may say otherwise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel

from loralet.errors import CheckpointError
from loralet.hub.tensors import lfs_advice
from loralet.models.family import ROBERTA_TOKENS, SpecialTokens
from loralet.records import read_json

LOGGER = logging.getLogger("loralet")
CONFIG, ADDED = "tokenizer_config.json", "added_tokens.json"
AS_SAVED = ("PreTrainedTokenizer", "TokenizersBackend")
"""Values of ``tokenizer_class``, without the ending Fast, for which transformers uses tokenizer.json as it is."""
NORMALIZER = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
"""Keys of BERT's and MPNet's tokenizer_config.json: name in tokenizer.json, and default of the class."""
PREFIX = "add_prefix_space"


def read_settings(folder: Path) -> dict[str, object]:
    """The content of tokenizer_config.json; empty without one.

    Raises:
        CheckpointError: it is not a JSON object, or a key has a value of a wrong type.
    """
    path = folder / CONFIG
    if not path.exists():
        return {}
    config = _object(path)
    for key in (*NORMALIZER, PREFIX):
        if not isinstance(config.get(key), (bool, type(None))):
            raise CheckpointError(f"{path}: {key} is {config[key]!r}; true, false or null is expected")
    return config


def apply_settings(tokenizer: Tokenizer, folder: Path, config: Mapping[str, object], tokens: SpecialTokens) -> None:
    """Change the tokenizer of a tokenizer.json to what transformers makes of it. Each change is logged.

    Args:
        tokenizer: the tokenizer of tokenizer.json.
        folder: its folder, for messages.
        config: the content of tokenizer_config.json.
        tokens: special tokens of the family.
    """
    if str(config.get("tokenizer_class") or "").removesuffix("Fast") in AS_SAVED:
        return
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    if isinstance(normalizer, BertNormalizer):
        before = {name: getattr(normalizer, name) for name, _ in NORMALIZER.values()}
        after = {name: _given(config, key, default) for key, (name, default) in NORMALIZER.items()}
        if effective(before) != effective(after):
            changed = BertNormalizer(normalizer.clean_text, **after)  # type: ignore[arg-type]  # accents: None
            tokenizer.normalizer = changed
            _say(folder, _differences(config, before, after))
    elif isinstance(pre_tokenizer, ByteLevel) and tokens.first == ROBERTA_TOKENS.first:
        wanted = bool(config.get(PREFIX))
        if pre_tokenizer.add_prefix_space != wanted:
            pre_tokenizer.add_prefix_space = wanted
            tokenizer.pre_tokenizer = pre_tokenizer
            _say(folder, [_difference(config, PREFIX, PREFIX, not wanted, wanted)])


def effective(options: Mapping[str, bool | None]) -> dict[str, bool | None]:
    """Options of a BertNormalizer; accents are stripped from lower-cased texts if nothing else is said."""
    accents = options["strip_accents"]
    return {**options, "strip_accents": options["lowercase"] if accents is None else accents}


def _given(config: Mapping[str, object], key: str, default: bool | None) -> bool | None:
    value = config.get(key, default)
    return bool(value) if value is not None or key != "strip_accents" else None


def _differences(
    config: Mapping[str, object], before: Mapping[str, bool | None], after: Mapping[str, bool | None]
) -> Iterator[str]:
    own, wanted = effective(before), effective(after)
    for key, (name, _) in NORMALIZER.items():
        if own[name] != wanted[name]:
            yield _difference(config, key, name, own[name], wanted[name])


def _difference(config: Mapping[str, object], key: str, name: str, own: bool | None, wanted: bool | None) -> str:
    said = "" if key in config else ", the default"
    return f"{key} is {json.dumps(wanted)}{said}, but {name} of tokenizer.json is {json.dumps(own)}"


def _say(folder: Path, differences: Iterator[str] | list[str]) -> None:
    message = "%s: the tokenizer's files disagree: %s; %s is followed, as in transformers"
    LOGGER.warning(message, folder, "; ".join(differences), CONFIG)


def add_tokens(tokenizer: Tokenizer, folder: Path, config: Mapping[str, object]) -> None:
    """Add the tokens of ``added_tokens_decoder`` in tokenizer_config.json, else those of added_tokens.json.

    Raises:
        CheckpointError: they cannot be read, or a token would have another id than the one that is written.
    """
    path = folder / (CONFIG if "added_tokens_decoder" in config else ADDED)
    if path.name == ADDED and not path.exists():
        return
    try:
        wanted = _decoder(config) if path.name == CONFIG else _legacy(_object(path), config)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the added tokens cannot be read ({error})") from error
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for number, token in sorted(wanted.items()):
        if token.content in known:
            continue
        tokenizer.add_tokens([token])
        found = tokenizer.token_to_id(token.content)
        if found != number:
            raise CheckpointError(
                f"{path}: the token {token.content!r} has the id {number}, but it is {found} in the vocabulary; "
                "use files of one tokenizer"
            )


def _decoder(config: Mapping[str, object]) -> dict[int, AddedToken]:
    raw = config["added_tokens_decoder"]
    if not isinstance(raw, dict) or not all(isinstance(token, dict) for token in raw.values()):
        raise TypeError("added_tokens_decoder must be an object of objects")
    return {int(number): AddedToken(**token) for number, token in raw.items()}


def _legacy(raw: Mapping[str, object], config: Mapping[str, object]) -> dict[int, AddedToken]:
    special = {str(value) for key, value in config.items() if key.endswith("_token")}
    return {
        int(str(number)): AddedToken(content, normalized=content not in special, special=content in special)
        for content, number in raw.items()
    }


def _object(path: Path) -> dict[str, object]:
    try:
        config = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({lfs_advice(path) or error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config
