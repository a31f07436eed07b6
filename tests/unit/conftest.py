"""Fixtures shared by the unit tests."""

import pytest
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

WORDS = ("the", "cat", "dog", "sat", "ran", "on", "a", "mat", "up", "##s", "##ing", "!", ".", ",")


def word_piece(*more: str) -> Tokenizer:
    """A WordPiece tokenizer of a few words, [CLS] and [SEP] around every text."""
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *more)
    return Tokenizer.from_str(
        BertWordPieceTokenizer({token: i for i, token in enumerate(tokens)}, lowercase=True).to_str()
    )


@pytest.fixture
def tokenizer() -> Tokenizer:
    return word_piece()
