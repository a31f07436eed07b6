"""Small checkpoints of every model family, as transformers writes them; STAND_INS has one entry per family."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from checkpoints import LETTERS, MARKS, PIECES, SENTENCES, WORDS, vocabulary, write_vocabulary
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.implementations import ByteLevelBPETokenizer


def by_transformers(
    folder: Path, kind: str, seed: int = 0, headed: bool = True, rows: int = 0, positions: int = 66, **config: Any
) -> Path:
    """A checkpoint with random weights, written by transformers' save_pretrained, with the tokenizer files of its kind.

    Args:
        folder: folder to create.
        kind: one of ``KINDS``.
        headed: save it with its pretraining head, so that tensor names have the kind's prefix; else the bare encoder.
        rows: rows of the word embedding; 0: as many as the vocabulary has tokens.
        positions: rows of the position table.
        config: further keys of its configuration.
    """
    import transformers

    folder.mkdir(parents=True)
    family = STAND_INS[kind]
    tokens = family.tokenizer(folder)
    sizes: dict[str, Any] = {"vocab_size": rows or tokens, "max_position_embeddings": positions}
    form = getattr(transformers, family.transformers + (family.pretrained if headed else "Model"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = form(getattr(transformers, f"{family.transformers}Config")(**sizes | family.config | config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            # Random values: with the initial values (norms 1, biases 0), swapped tensors would not be noticed.
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(folder)
    return folder


def write_word_piece(folder: Path) -> int:
    """BERT's tokenizer file (vocab.txt); the number of tokens."""
    write_vocabulary(folder, vocabulary())
    return len(vocabulary())


def write_byte_level(folder: Path) -> int:
    """RoBERTa's tokenizer files (vocab.json, merges.txt), trained on a few sentences; the number of tokens."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        SENTENCES,
        vocab_size=320,
        min_frequency=1,
        show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    tokenizer.save_model(str(folder))
    return int(tokenizer.get_vocab_size())


def write_unigram(folder: Path) -> int:
    """XLM-RoBERTa's tokenizer.json, which contains SentencePiece's Unigram model; the number of tokens."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = ["▁", *(f"▁{word}" for word in WORDS), *(piece[2:] for piece in PIECES if len(piece) > 3)]
    letters = [*LETTERS, *LETTERS.upper(), *"0123456789", *MARKS, "é", "ï", "ü"]
    scores = [(token, 0.0) for token in special] + [(piece, -3.0 - i / 10) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram([*scores, *((letter, -9.0) for letter in letters)], unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(character_map(WIDTHS))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")]
    )
    tokenizer.decoder = decoders.Metaspace("▁", "always")
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, "XLMRobertaTokenizer", first="<s>", last="</s>", padding="<pad>", mask="<mask>")
    return int(tokenizer.get_vocab_size())


def write_framed_word_piece(folder: Path) -> int:
    """MPNet's files: its special tokens, followed by BERT's vocabulary; the number of tokens."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *vocabulary(), "<mask>"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "[UNK]", AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_vocabulary(folder, tokens)
    own = {"unk_token": "[UNK]", "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    write_tokenizer_config(folder, "MPNetTokenizer", first="<s>", last="</s>", padding="<pad>", mask="<mask>", **own)
    return len(tokens)


def write_framed_byte_level(folder: Path) -> int:
    """ModernBERT's tokenizer.json: byte-level BPE whose special tokens follow its vocabulary; the number of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    special = [AddedToken(token, special=True) for token in ("<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]")]
    tokenizer.add_special_tokens([*special, AddedToken("[MASK]", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken(f"[unused{i}]") for i in range(3)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    own = {"unk_token": "[UNK]", "model_input_names": ["input_ids", "attention_mask"]}
    kind = "PreTrainedTokenizerFast"
    write_tokenizer_config(folder, kind, first="[CLS]", last="[SEP]", padding="[PAD]", mask="[MASK]", **own)
    return int(tokenizer.get_vocab_size())


WIDTHS = {chr(0xFEE0 + ord(c)): c for c in "ABCabc012"} | {"\u3000": " ", "\u00a0": " ", "\ufb01": "fi", "\t": " "}
"""A few of the characters that SentencePiece's normalisation (nmt_nfkc) replaces."""


def character_map(replaced: Mapping[str, str]) -> bytes:
    """SentencePiece's ``precompiled_charsmap``: a double-array trie over the bytes, then the replacements.

    A unit of the array is a label (bits 0-7), a flag for a value (bit 8) and an offset (from bit 10). The children of a
    node are in a separate block of 256 units; the value of a node is the first unit of its block.
    """
    texts, places = b"", {}
    for old, new in replaced.items():
        places[old.encode()] = len(texts)
        texts += new.encode() + b"\0"
    nodes = sorted({key[:i] for key in places for i in range(len(key) + 1)})
    blocks = {node: 256 * (number + 1) for number, node in enumerate(nodes)}
    units = [0] * 256 * (len(nodes) + 1)
    for node, block in blocks.items():
        place = blocks[node[:-1]] + node[-1] if node else 0
        units[place] = (node[-1] if node else 0) | (node in places) << 8 | (place ^ block) << 10
        if node in places:
            units[block] = 1 << 31 | places[node]
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts


def write_tokenizer_config(folder: Path, kind: str, first: str, last: str, padding: str, mask: str, **own: Any) -> None:
    """Write a tokenizer_config.json next to tokenizer.json."""
    tokens = {"cls_token": first, "sep_token": last, "pad_token": padding, "mask_token": mask}
    config = {"model_max_length": 512, "tokenizer_class": kind} | tokens | own
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True)
class StandIn:
    """The small checkpoint of one family.

    Args:
        transformers: beginning of the names of its classes in transformers.
        pretrained: ending of the class with the head that it is pretrained with.
        tokenizer: writes its tokenizer files to a folder; returns the number of tokens.
        config: keys of its configuration: sizes, and values that published checkpoints set.
        padding: id of the padding token.
        first_position: row of the position table that the first token reads.
        adapted: a linear layer, as the ``target_modules`` of PEFT name it.
        pooled: whether the bare encoder has a pooler.
        refused: why the native backend does not support it; empty if it does.
    """

    transformers: str
    pretrained: str = "ForMaskedLM"
    tokenizer: Callable[[Path], int] = write_word_piece
    config: Mapping[str, Any] = field(default_factory=lambda: SIZES)
    padding: int = 0
    first_position: int = 0
    adapted: str = "query"
    pooled: bool = False
    refused: str = ""


SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
MODERN_IDS = {"cls_token_id": 345, "sep_token_id": 346, "pad_token_id": 347, "bos_token_id": 345, "eos_token_id": 346}
FAIRSEQ = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5}
"""Configuration keys shared by RoBERTa and related families."""

STAND_INS = {
    "bert": StandIn("Bert", "ForPreTraining", pooled=True),
    "roberta": StandIn(
        "Roberta",
        tokenizer=write_byte_level,
        config=SIZES | FAIRSEQ | {"type_vocab_size": 1},
        padding=1,
        first_position=2,
        pooled=True,
    ),
    "distilbert": StandIn(
        "DistilBert", config={"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64}, adapted="q_lin"
    ),
    "electra": StandIn("Electra", "ForPreTraining", config=SIZES | {"embedding_size": 16}),
    "modernbert": StandIn(
        "ModernBert",
        tokenizer=write_framed_byte_level,
        # Global attention in layers 0 and 3, local attention to 8 tokens on either side in the others.
        config=SIZES | MODERN_IDS | {"num_hidden_layers": 4, "local_attention": 16},
        padding=MODERN_IDS["pad_token_id"],
        adapted="Wqkv",
        refused="norm_first is True",
    ),
    "mpnet": StandIn(
        "MPNet",
        tokenizer=write_framed_word_piece,
        config=SIZES | FAIRSEQ | {"relative_attention_num_buckets": 32},
        padding=1,
        first_position=2,
        adapted="attn.v",
        pooled=True,
        refused="relative_buckets is 32",
    ),
    "xlm-roberta": StandIn(
        "XLMRoberta",
        tokenizer=write_unigram,
        config=SIZES | FAIRSEQ | {"type_vocab_size": 1},
        padding=1,
        first_position=2,
        pooled=True,
    ),
}
KINDS = tuple(STAND_INS)
