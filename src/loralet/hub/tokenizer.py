"""Load a checkpoint's tokenizer from the files that it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.implementations import (  # type: ignore[attr-defined]  # implicit re-export
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
)
from tokenizers.processors import RobertaProcessing

from loralet.errors import CheckpointError
from loralet.hub.tensors import lfs_advice
from loralet.hub.tokenizer_settings import ADDED, CONFIG, add_tokens, apply_settings, read_settings
from loralet.models.family import ROBERTA_TOKENS, SpecialTokens

TOKENIZER_FILES = ("tokenizer.json", CONFIG, "vocab.txt", "vocab.json", "merges.txt", ADDED)


def load_tokenizer(folder: Path, vocabulary: int, tokens: SpecialTokens) -> Tokenizer:
    """Load a tokenizer and turn off truncation and padding.

    Args:
        folder: has tokenizer.json, or vocab.txt (WordPiece), or vocab.json and merges.txt (byte-level BPE). The files
            tokenizer_config.json and added_tokens.json are read as transformers reads them.
        vocabulary: number of word embeddings; every token id must be smaller.
        tokens: special tokens of the family, for a vocabulary without tokenizer.json.

    Raises:
        CheckpointError: no vocabulary, an invalid one, one without the special tokens, or one with more tokens than
            word embeddings.
    """
    if (folder / "tokenizer.json").exists():
        path, read = folder / "tokenizer.json", _ready_made
    elif (folder / "vocab.txt").exists():
        path, read = folder / "vocab.txt", _word_piece
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        path, read = folder / "vocab.json", _byte_level
    else:
        raise CheckpointError(
            f"{folder}: no vocabulary; expected tokenizer.json, vocab.txt, or vocab.json with merges.txt"
        )
    tokenizer = _read(path, read, tokens)
    size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    if size > vocabulary:
        raise CheckpointError(
            f"{folder}: the vocabulary has {size} tokens, but there are {vocabulary} word embeddings; "
            "use the tokenizer of this model"
        )
    empty = tokenizer.encode("").ids
    if not empty:
        raise CheckpointError(
            f"{path}: the tokenizer adds no special token before a text; the classifier reads that token's state"
        )
    if max(empty) >= vocabulary:
        raise CheckpointError(
            f"{path}: the tokenizer adds the token id {max(empty)} to every text, but there are {vocabulary} word "
            "embeddings; use the tokenizer of this model"
        )
    return tokenizer


PROBES = ("The Café 2004", "naïve ZÜRICH e\u0301", "中国東京, new.team", " a  b\tc ", "<s> [CLS] x [MASK]")
"""Texts on which the settings of tokenizers show."""


def same_tokens(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have the same vocabulary, and the same ids for :data:`PROBES`."""
    words = one.get_vocab(with_added_tokens=True) == other.get_vocab(with_added_tokens=True)
    return words and all(one.encode(text).ids == other.encode(text).ids for text in PROBES)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a vocabulary that :func:`load_tokenizer` reads."""
    return any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json"))


def _read(path: Path, read: Callable[[Path, SpecialTokens], Tokenizer], tokens: SpecialTokens) -> Tokenizer:
    """Read a vocabulary, without truncation and padding, and encode an empty text.

    Raises:
        CheckpointError: it cannot be read, or cannot encode a text.
    """
    try:
        tokenizer = read(path, tokens)
        add_tokens(tokenizer, path.parent, read_settings(path.parent))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode("")
    except (CheckpointError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and a panic of Rust is not an Exception
        reason = lfs_advice(path) or str(error)
        raise CheckpointError(f"{path}: the tokenizer cannot be read ({reason})") from error
    return tokenizer


def _ready_made(path: Path, tokens: SpecialTokens) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    apply_settings(tokenizer, path.parent, read_settings(path.parent), tokens)
    return tokenizer


def _word_piece(path: Path, tokens: SpecialTokens) -> Tokenizer:
    words = path.read_text(encoding="utf-8").split("\n")  # not splitlines: U+2028 and similar characters may be tokens
    if not words[-1]:
        del words[-1]
    missing = [token for token in (tokens.unknown, tokens.first, tokens.last) if token not in words]
    if missing:
        if advice := lfs_advice(path):
            raise CheckpointError(f"{path}: {advice}")
        raise CheckpointError(
            f"{path}: not a WordPiece vocabulary; {', '.join(missing)} missing from its {len(words)} tokens"
        )
    config = read_settings(path.parent)
    # Without a config, a vocabulary without capitals outside [SPECIAL] tokens means lower-cased text.
    capitals = any(word != word.lower() for word in words if not word.startswith("["))
    lowercase, accents = config.get("do_lower_case"), config.get("strip_accents")
    vocabulary = {word: i for i, word in enumerate(words)}
    wrapper = BertWordPieceTokenizer(
        vocabulary,
        unk_token=tokens.unknown,
        sep_token=tokens.last,
        cls_token=tokens.first,
        pad_token=tokens.padding,
        mask_token=tokens.mask,
        lowercase=not capitals if lowercase is None else bool(lowercase),
        strip_accents=None if accents is None else bool(accents),
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
    )
    tokenizer = _plain(wrapper)
    if tokens.first == ROBERTA_TOKENS.first:  # MPNet: BERT's vocabulary, RoBERTa's template for pairs
        first, last = ((token, vocabulary[token]) for token in (tokens.first, tokens.last))
        tokenizer.post_processor = RobertaProcessing(last, first, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def _byte_level(path: Path, tokens: SpecialTokens) -> Tokenizer:
    spaced = bool(read_settings(path.parent).get("add_prefix_space"))
    wrapper = ByteLevelBPETokenizer.from_file(str(path), str(path.with_name("merges.txt")), add_prefix_space=spaced)
    tokenizer = _plain(wrapper)
    first, last = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    if first is None or last is None:
        raise CheckpointError(f"{path}: not a RoBERTa vocabulary; <s> or </s> is missing")
    special = [
        token for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if tokenizer.token_to_id(token) is not None
    ]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", last), ("<s>", first), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def _plain(wrapper: BertWordPieceTokenizer | ByteLevelBPETokenizer) -> Tokenizer:
    """The tokenizer inside one of the library's wrapper classes."""
    return Tokenizer.from_str(wrapper.to_str())
