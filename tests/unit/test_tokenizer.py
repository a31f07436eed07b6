"""Tokenizers built from a checkpoint's files, compared with transformers."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import transformers
from checkpoints import SENTENCES, SPECIALS, vocabulary, write_vocabulary
from stand_ins import KINDS, by_transformers, write_byte_level
from tokenizers import Tokenizer, models, pre_tokenizers

from loralet.errors import CheckpointError
from loralet.hub.backbone import load_backbone
from loralet.hub.tokenizer import load_tokenizer
from loralet.hub.tokenizer_config import tokenizer_config
from loralet.models.family import ROBERTA_TOKENS, SpecialTokens

ROWS = 1000
"""Number of embedding rows, larger than any vocabulary in these tests."""

BERT_TOKENS = SpecialTokens()

NASTY = (
    "",
    " ",
    "\t\n\r",
    "The team WINS the game!",
    "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u00dcber STRASSE stra\u00dfe",
    "cafe\u0301 e\u0301\u0300 \u0130stanbul \u03a3\u0391\u03a3",
    "\u4e2d\u56fd\u4e1c\u4eac news \u4e2dand\u56fd",
    "\U00020000\ufa0e \u3042\u30a2\uac00",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "tab\there\nand\u00a0there\u2003wide\u3000ideographic",
    "zero\u200bwidth \ufefftext soft\u00adhyphen",
    "nul\x00bell\x07 del\x7f replaced\ufffd",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "stocks " * 40,
    "don't e-mail U.S. $3.50 50% AT&amp;T &lt;b&gt; #39;s \\\\ doubled  spaces",
    "[CLS] literal [MASK] specials [SEP] [UNK] [PAD] [cls] [unused0]",
    "\u20ac5\u20137 \u201cquoted\u201d \u2026 \u00bd \u00b2 \u2460 \ufb01",
    "playing played player playly stocking 2004",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 "
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "plain words, and then a very last one",
)


def ids(tokenizer: Tokenizer, texts: tuple[str, ...] = NASTY) -> dict[str, list[int]]:
    return {text: encoding.ids for text, encoding in zip(texts, tokenizer.encode_batch(list(texts)), strict=True)}


def word_piece(folder: Path, tokens: list[str], **config: object) -> Path:
    folder.mkdir()
    write_vocabulary(folder, tokens)
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def cased_vocabulary() -> list[str]:
    return [
        *vocabulary(),
        *"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        *(f"##{c}" for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "The",
        "\u00e9",
        "##\u00e9",
        "##\u00ef",
    ]


def load(folder: Path, rows: int = ROWS, tokens: SpecialTokens = BERT_TOKENS) -> Tokenizer:
    return load_tokenizer(folder, rows, tokens)


def refusal(folder: Path, rows: int = ROWS, tokens: SpecialTokens = BERT_TOKENS) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(folder, rows, tokens)
    return str(caught.value)


class TestWordPiece:
    @pytest.mark.parametrize("cased", [False, True])
    def test_equals_transformers(self, cased: bool, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", cased_vocabulary() if cased else vocabulary(), do_lower_case=not cased)
        ours = ids(load(folder))
        theirs = transformers.BertTokenizer.from_pretrained(folder, do_lower_case=not cased)
        assert ours == {text: theirs(text)["input_ids"] for text in NASTY}
        other = transformers.BertTokenizer.from_pretrained(folder, do_lower_case=cased)
        assert ours != {text: other(text)["input_ids"] for text in NASTY}

    def test_case_is_inferred_from_the_vocabulary_without_a_config(self, tmp_path: Path) -> None:
        uncased = load(word_piece(tmp_path / "a", vocabulary()))
        cased = load(word_piece(tmp_path / "b", cased_vocabulary()))
        assert uncased.encode("The Caf\u00c9").tokens == ["[CLS]", "the", "cafe", "[SEP]"]
        assert cased.encode("The CAf\u00e9").tokens == ["[CLS]", "The", "C", "##A", "##f", "##\u00e9", "[SEP]"]

    def test_the_config_overrides_the_vocabulary_on_case(self, tmp_path: Path) -> None:
        kept = load(word_piece(tmp_path / "a", vocabulary(), do_lower_case=False))
        lowered = load(word_piece(tmp_path / "b", cased_vocabulary(), do_lower_case=True))
        assert kept.encode("The the").tokens == ["[CLS]", "[UNK]", "the", "[SEP]"]
        assert lowered.encode("The the").tokens == ["[CLS]", "the", "the", "[SEP]"]

    @pytest.mark.parametrize("config", [{"model_max_length": 512}, {"do_lower_case": None}])
    def test_a_config_without_a_case_option(self, config: dict[str, object], tmp_path: Path) -> None:
        uncased = load(word_piece(tmp_path / "a", vocabulary(), **config))
        cased = load(word_piece(tmp_path / "b", cased_vocabulary(), **config))
        assert uncased.encode("The").tokens == ["[CLS]", "the", "[SEP]"]
        assert cased.encode("The").tokens == ["[CLS]", "The", "[SEP]"]

    def test_accents_are_kept_if_the_config_says_so(self, tmp_path: Path) -> None:
        tokens = [*vocabulary(), "caf\u00e9"]
        stripped = load(word_piece(tmp_path / "a", tokens, do_lower_case=True))
        kept = load(word_piece(tmp_path / "b", tokens, do_lower_case=True, strip_accents=False))
        assert stripped.encode("Caf\u00e9").tokens[1] == "cafe"
        assert kept.encode("Caf\u00e9").tokens[1] == "caf\u00e9"

    @pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x1c", "a\u2029b"])
    def test_only_a_newline_ends_a_token(self, odd: str, tmp_path: Path) -> None:
        plain = load(word_piece(tmp_path / "a", vocabulary()))
        tokens = vocabulary()
        tokens[1] = odd  # [unused0] is replaced by a token that some programs treat as a line break
        folder = word_piece(tmp_path / "b", tokens)
        strange = load(folder, len(tokens))
        assert strange.token_to_id(odd) == 1
        assert strange.encode("the team").ids == plain.encode("the team").ids
        assert (
            strange.encode("the team").ids
            == transformers.BertTokenizer.from_pretrained(folder)("the team")["input_ids"]
        )

    def test_windows_line_endings_and_a_missing_final_newline(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", vocabulary())
        expected = ids(load(folder))
        (folder / "vocab.txt").write_bytes("\r\n".join(vocabulary()).encode())
        assert load(folder, len(vocabulary())).get_vocab() == {token: i for i, token in enumerate(vocabulary())}
        assert ids(load(folder)) == expected

    @pytest.mark.parametrize("missing", [("[UNK]",), ("[CLS]",), ("[SEP]",), ("[CLS]", "[SEP]")])
    def test_special_tokens_are_required(self, missing: tuple[str, ...], tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", [token for token in vocabulary() if token not in missing])
        message = refusal(folder)
        assert str(folder / "vocab.txt") in message
        assert f"{', '.join(missing)} missing from its {len(vocabulary()) - len(missing)} tokens" in message

    def test_an_empty_vocabulary(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", [])
        assert "[UNK], [CLS], [SEP] missing from its 0 tokens" in refusal(folder)

    def test_words_longer_than_a_hundred_characters_are_unknown(self, tmp_path: Path) -> None:
        tokenizer = load(word_piece(tmp_path / "a", vocabulary()))
        assert tokenizer.encode("").tokens == ["[CLS]", "[SEP]"]
        assert tokenizer.encode("a" * 100).tokens == ["[CLS]", "a", *["##a"] * 99, "[SEP]"]
        assert tokenizer.encode("a" * 101).tokens == ["[CLS]", "[UNK]", "[SEP]"]

    def test_words_with_the_special_tokens_of_another_family(self, tmp_path: Path) -> None:
        tokens = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *vocabulary()]
        folder = word_piece(tmp_path / "a", [token for token in tokens if token not in ("[CLS]", "[SEP]")])
        mpnet = SpecialTokens("<s>", "</s>", "<pad>", "[UNK]", "<mask>")
        framed = load(folder, tokens=mpnet)
        theirs = transformers.MPNetTokenizer.from_pretrained(folder)
        texts = [text for text in NASTY if "[" not in text]
        assert ids(framed, tuple(texts)) == {text: theirs(text)["input_ids"] for text in texts}
        assert framed.encode("the team", "wins").tokens == ["<s>", "the", "team", "</s>", "</s>", "wins", "</s>"]
        assert framed.encode("the team", "wins").ids == theirs("the team", "wins")["input_ids"]
        assert "[CLS], [SEP] missing" in refusal(folder)


class TestByteLevel:
    def test_equals_transformers(self, tmp_path: Path) -> None:
        tokens = write_byte_level(tmp_path)
        texts = (
            *NASTY,
            *SENTENCES,
            "literal <s> and </s> and <mask> and <pad> and <unk>",
            "a  <mask>  b",
            " leading",
            "trailing ",
        )
        ours = ids(load(tmp_path, tokens, ROBERTA_TOKENS), texts)
        theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
        assert ours == {text: theirs(text)["input_ids"] for text in texts}
        prefixed = transformers.RobertaTokenizer.from_pretrained(tmp_path, add_prefix_space=True)
        assert ours != {text: prefixed(text)["input_ids"] for text in texts}

    def test_text_is_placed_between_the_special_tokens(self, tmp_path: Path) -> None:
        write_byte_level(tmp_path)
        tokenizer = load(tmp_path, tokens=ROBERTA_TOKENS)
        assert tokenizer.encode("").tokens == ["<s>", "</s>"]
        assert tokenizer.encode("the team").tokens[::3] == ["<s>", "</s>"]

    @pytest.mark.parametrize("missing", ["<s>", "</s>"])
    def test_special_tokens_are_required(self, missing: str, tmp_path: Path) -> None:
        write_byte_level(tmp_path)
        path = tmp_path / "vocab.json"
        path.write_text(json.dumps({token: i for token, i in json.loads(path.read_text()).items() if token != missing}))
        message = refusal(tmp_path, tokens=ROBERTA_TOKENS)
        assert str(path) in message
        assert "<s> or </s> is missing" in message

    @pytest.mark.parametrize("gone", ["vocab.json", "merges.txt"])
    def test_one_of_two_vocabulary_files_is_not_enough(self, gone: str, tmp_path: Path) -> None:
        write_byte_level(tmp_path)
        (tmp_path / gone).unlink()
        message = refusal(tmp_path, tokens=ROBERTA_TOKENS)
        assert str(tmp_path) in message
        assert "expected tokenizer.json, vocab.txt, or vocab.json with merges.txt" in message


class TestTokenizerFile:
    def test_truncation_and_padding_are_removed(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", vocabulary())
        long = "the team wins " * 20
        expected = load(folder).encode(long).ids
        own = load(folder)
        own.enable_truncation(8)
        own.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
        own.save(str(folder / "tokenizer.json"))
        carried = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert len(carried.encode(long).ids) == 16
        loaded = load(folder)
        assert loaded.truncation is None
        assert loaded.padding is None
        assert loaded.encode(long).ids == expected
        assert len(expected) == 62

    def test_it_takes_precedence_over_the_vocabulary(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", vocabulary())
        load(word_piece(tmp_path / "b", [*SPECIALS, "[PAD]", "team"])).save(str(folder / "tokenizer.json"))
        assert load(folder).encode("team").ids == [1, 5, 2]

    def test_it_survives_saving(self, tmp_path: Path) -> None:
        first = load(word_piece(tmp_path / "a", vocabulary()))
        (tmp_path / "b").mkdir()
        first.save(str(tmp_path / "b" / "tokenizer.json"))
        assert ids(load(tmp_path / "b")) == ids(first)

    def test_a_tokenizer_without_special_tokens(self, tmp_path: Path) -> None:
        plain = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
        plain.pre_tokenizer = pre_tokenizers.Whitespace()
        plain.save(str(tmp_path / "tokenizer.json"))
        message = refusal(tmp_path)
        assert str(tmp_path / "tokenizer.json") in message
        assert "special token" in message

    def test_a_vocabulary_larger_than_the_embedding(self, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", vocabulary())
        size = len(vocabulary())
        own = load(folder, size)
        assert str(folder) in refusal(folder, size - 1)
        own.add_tokens(["loanword"])
        own.save(str(folder / "tokenizer.json"))
        assert f"the vocabulary has {size + 1} tokens, but there are {size} word embeddings" in refusal(folder, size)
        assert load(folder, size + 1).encode("loanword").ids[1:-1] == [size]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFamily:
    def test_equals_transformers(self, kind: str, tmp_path: Path) -> None:
        folder = by_transformers(tmp_path / "a", kind, headed=False)
        tokenizer = load_backbone(str(folder)).tokenizer
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        texts = (*NASTY, *SENTENCES)
        assert ids(tokenizer, texts) == {text: theirs(text)["input_ids"] for text in texts}
        for first, second in pairwise(texts):  # no second text is empty: to transformers that is none
            assert tokenizer.encode(first, second).ids == theirs(first, second)["input_ids"]
        assert len({tuple(row) for row in ids(tokenizer, texts).values()}) > len(texts) / 2

    def test_the_config_written_beside_a_copy_describes_it(self, kind: str, tmp_path: Path) -> None:
        """transformers reads the same from our tokenizer files as from the checkpoint."""
        folder = by_transformers(tmp_path / "a", kind, headed=False)
        backbone = load_backbone(str(folder))
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "config.json").write_bytes((folder / "config.json").read_bytes())
        backbone.tokenizer.save(str(tmp_path / "b" / "tokenizer.json"))
        config = tokenizer_config(backbone.tokenizer, backbone.table.longest)
        (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps(config))
        before, after = (transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in "ab")
        for role in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
            assert getattr(after, role) == getattr(before, role), role
        texts = [*NASTY, *SENTENCES]
        assert after(texts, padding=True)["input_ids"] == before(texts, padding=True)["input_ids"]
        assert after(texts, texts[::-1])["input_ids"] == before(texts, texts[::-1])["input_ids"]
        assert after.model_max_length == backbone.table.longest


class TestBroken:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("tokenizer.json", b"{"),
            ("tokenizer.json", b"{}"),
            ("tokenizer_config.json", b"{"),
            ("vocab.txt", b"\xff\xfe[CLS]\n"),
        ],
    )
    def test_files_that_cannot_be_read(self, name: str, content: bytes, tmp_path: Path) -> None:
        folder = word_piece(tmp_path / "a", vocabulary())
        assert load(folder).get_vocab_size() == len(vocabulary())
        (folder / name).write_bytes(content)
        message = refusal(folder)
        assert str(folder / name) in message
        assert "cannot be read" in message or "not valid JSON" in message

    @pytest.mark.parametrize(("name", "content"), [("vocab.json", "{"), ("vocab.json", "[]"), ("merges.txt", "q z\n")])
    def test_byte_level_files_that_cannot_be_read(self, name: str, content: str, tmp_path: Path) -> None:
        write_byte_level(tmp_path)
        (tmp_path / name).write_text(content)
        message = refusal(tmp_path, tokens=ROBERTA_TOKENS)
        assert str(tmp_path) in message
        assert "cannot be read" in message

    def test_missing_tokenizer_files(self, tmp_path: Path) -> None:
        assert f"{tmp_path}: no vocabulary" in refusal(tmp_path)
