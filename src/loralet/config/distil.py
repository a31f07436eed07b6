"""Options of distillation: a small encoder from a larger one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from loralet.config.compute import ComputeOptions
from loralet.config.limits import interval_problems, rate_problems, student_problems
from loralet.config.shared import CheckpointEvery, MaxLength, TextColumn


@dataclass(frozen=True)
class DistillConfig:
    """Options of ``loralet distill``."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")] = ""
    """Larger encoder: short name, hub id or folder."""
    text: tuple[str, ...] = ()
    """Files of texts: CSV, TSV, JSONL or Parquet with a text column, or one text per line. Labels are ignored."""
    text_column: TextColumn = ""
    out: str = ""
    """Folder for the student."""
    layers: int = 2
    """Number of layers of the student."""
    width: int = 128
    """Width of the student's hidden states."""
    heads: int = 2
    """Attention heads per layer of the student."""
    feed_forward: int = 512
    """Width of the student's feed-forward layers."""
    positions: int = 512
    """Maximum text length of the student, in tokens; at most the teacher's."""
    match: tuple[int, ...] = ()
    """Teacher layer for each student layer, counted from 1; evenly spaced if empty."""
    start: str = ""
    """Student folder or hub id with the initial weights; made from the teacher if empty."""
    token_states: bool = True
    """Match the states of every token, not only sentence embeddings. Without them, no states are stored on disk."""
    mixtures: int = 3
    """Synthetic texts per training text: its beginning joined to the end of another, some tokens replaced."""
    epochs: int = 4
    """Epochs of the first phase, which matches token states and sentence embeddings."""
    pooled_epochs: int = 2
    """Epochs of the second phase, which also matches the pooled first token."""
    lr: float = 2e-3
    """Peak learning rate of the first phase."""
    pooled_lr: float = 1e-3
    """Peak learning rate of the second phase."""
    batch_size: int = 64
    """Texts per step."""
    max_length: MaxLength = 128
    held_out: float = 0.02
    """Fraction of the texts held out for evaluation after every epoch."""
    seed: int = 0
    """Random seed for initial values, text order and held-out split."""
    checkpoint_every: CheckpointEvery = 30.0
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    half: bool = False
    """Save the weights in fp16 (half the size)."""
    teacher_name: str = ""
    """Name of the teacher on the model card; its folder name or hub id if empty."""
    licence: str = ""
    """Licence of the student on the model card; omitted if empty."""

    def problems(self) -> Iterator[str]:
        needed = {
            "teacher": "a short name, a hub id or a folder",
            "text": "at least one file with --text",
            "out": "the output folder with --out",
        }
        yield from (f"{name} is empty: give {what}" for name, what in needed.items() if not getattr(self, name))
        yield from student_problems(self.layers, self.width, self.heads, self.feed_forward, self.match)
        for name, (least, why) in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                yield f"{name} is {value}: {why}"
        yield from self.compute.problems()
        yield from interval_problems(self.checkpoint_every)
        for name in ("lr", "pooled_lr"):
            yield from rate_problems(name, getattr(self, name))
        if self.match and not self.token_states:
            yield "match is given without token_states: only token states belong to a layer"
        if not 0 < self.held_out < 1:
            yield f"held_out is {self.held_out}: it must be above 0 and below 1"


LEAST = {
    "epochs": (1, "it must be at least 1"),
    "mixtures": (0, "it must not be negative (0: none)"),
    "pooled_epochs": (0, "it must not be negative (0: none)"),
    "batch_size": (2, "similarities within a batch need at least 2 texts"),
    "max_length": (3, "a text needs at least 3 tokens, two of them special"),
    "positions": (3, "a text needs at least 3 tokens, two of them special"),
}
"""Minimum of each integer option, and the message below it."""
