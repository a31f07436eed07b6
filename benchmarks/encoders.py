"""The encoders of the speed matrix: backbones given by path, and checkpoints with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from work import BATCH, EVERY, SAMPLE

from loralet.atomic import new_folder

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class Size(NamedTuple):
    """Amount of work per encoder, so that a cell takes seconds.

    Args:
        steps: optimiser steps of a single run.
        pack_steps: optimiser steps of a pack of nine.
        rows: validation rows and texts to classify.
        every: steps between two checks.
        batch: rows per step of a single run.
        pack_batch: rows per step of a pack of nine.
    """

    steps: int
    pack_steps: int
    rows: int
    every: int
    batch: int = BATCH
    pack_batch: int = BATCH

    def limited(self, steps: int | None, rows: int | None) -> Size:
        """At most so many steps and rows."""
        most = steps or max(self.steps, self.pack_steps)
        return self._replace(
            steps=min(self.steps, most),
            pack_steps=min(self.pack_steps, most),
            every=min(self.every, most),
            rows=min(self.rows, rows or self.rows),
        )

    def sample(self, batch: int) -> int:
        """Rows of the checks' sample, in the same proportion to the trained rows for all encoders."""
        return max(1, round(SAMPLE / (EVERY * BATCH) * self.every * batch))


class Encoder(NamedTuple):
    """An encoder: its size, and layers, width, heads and feed-forward width of a checkpoint with random weights."""

    size: Size
    random: tuple[int, int, int, int] | None = None


GIVEN, MINILM = "2x128", "6x384"
"""The encoders that are given by path: MODEL, and MiniLM-L6."""
ENCODERS = {
    GIVEN: Encoder(Size(steps=200, pack_steps=100, rows=2000, every=50)),
    "4x256": Encoder(Size(steps=40, pack_steps=10, rows=1000, every=10), (4, 256, 4, 1024)),
    MINILM: Encoder(Size(steps=16, pack_steps=4, rows=400, every=4)),
    "12x768": Encoder(Size(steps=3, pack_steps=2, rows=48, every=2, pack_batch=8), (12, 768, 12, 3072)),
}
"""Encoders by layers and width."""


def checkpoint(name: str, model: Path, minilm: Path | None, folder: Path) -> Path | None:
    """The folder of an encoder's checkpoint; None for MiniLM-L6 without a path.

    Args:
        name: one of :data:`ENCODERS`.
        model: backbone of 2 layers and width 128, whose tokenizer the random checkpoints use.
        minilm: folder of MiniLM-L6.
        folder: where checkpoints with random weights are created, once.
    """
    sizes = ENCODERS[name].random
    if sizes is None:
        return model if name == GIVEN else minilm
    made = folder / name
    if not made.exists():
        with new_folder(made) as temporary:
            _create(temporary, model, sizes)
    return made


def _create(folder: Path, model: Path, sizes: tuple[int, int, int, int]) -> None:
    """Write a BERT checkpoint with random weights and the tokenizer of ``model``."""
    import torch
    from transformers import BertConfig, BertModel

    layers, width, heads, feed_forward = sizes
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"],
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
    )
    BertModel(config).save_pretrained(folder)
    for file in TOKENIZER_FILES:
        if (model / file).exists():
            shutil.copyfile(model / file, folder / file)
