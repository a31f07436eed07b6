"""Building a small encoder from a larger one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Annotated

from tyro.conf import Positional, arg

from loralet.config.limits import student_problems
from loralet.config.training import Precision


@dataclass(frozen=True)
class DistillConfig:
    """Everything ``loralet distill`` needs."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")] = ""
    """The larger encoder: a hub id or a folder."""
    text: tuple[str, ...] = ()
    """Files of texts: CSV, TSV, JSONL or Parquet tables with a text column, or else one text a line. Labels are not read."""
    text_column: str = ""
    """Column of the tables that holds the text; found by its usual names when empty."""
    out: str = ""
    """Folder for the student."""
    layers: int = 2
    """Layers of the student."""
    width: int = 128
    """Width of the student's states."""
    heads: int = 2
    """Attention heads of a student's layer."""
    feed_forward: int = 512
    """Width of the student's feed-forward layers."""
    positions: int = 512
    """Longest text the student can read, in tokens; no more than the teacher's."""
    match: tuple[int, ...] = ()
    """The teacher's layer, counted from 1, that each of the student's layers matches; evenly spaced when empty."""
    mixtures: int = 3
    """Further texts made of each text trained on: its beginning joined to another's end, some tokens replaced (0 makes none)."""
    epochs: int = 4
    """Passes over texts and mixtures that match token states and sentence embeddings."""
    pooled_epochs: int = 2
    """Passes after those that match the pooled first token as well."""
    lr: float = 2e-3
    """Peak learning rate of the first passes."""
    pooled_lr: float = 1e-3
    """Peak learning rate of the pooled passes."""
    batch_size: int = 64
    """Texts in one step."""
    max_length: int = 128
    """Tokens kept of each text, the two special tokens included."""
    held_out: float = 0.02
    """Share of the texts that is never trained on and measures every epoch."""
    seed: int = 0
    """Seed of the initial values, of the order of the texts and of the held-out share."""
    precision: Precision = "auto"
    """Arithmetic of both encoders' linear maps; auto takes bf16 where the processor has it."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""
    resume: bool = False
    """Go on from the last full epoch of an interrupted distillation in the same folder."""
    half: bool = False
    """Write the weights in fp16: half the size."""
    teacher_name: str = ""
    """The teacher's name for the model card; the name of its folder or hub id when empty."""
    licence: str = ""
    """The student's licence for the model card, which the teacher's decides; unstated when empty."""

    def problems(self) -> Iterator[str]:
        needed = {
            "teacher": "a folder or a hub id",
            "text": "one file or more with --text",
            "out": "the student's folder with --out",
        }
        yield from (f"{name} is empty: give {what}" for name, what in needed.items() if not getattr(self, name))
        yield from student_problems(self.layers, self.width, self.heads, self.feed_forward, self.match)
        for name, (least, why) in LEAST.items():
            if (value := getattr(self, name)) is not None and value < least:
                yield f"{name} is {value}: {why}"
        for name in ("lr", "pooled_lr"):
            if not 0 < getattr(self, name) < inf:
                yield f"{name} is {getattr(self, name)}: it must be above 0, and finite"
        if not 0 < self.held_out < 1:
            yield f"held_out is {self.held_out}: it must lie between 0 and 1"


LEAST = {
    "epochs": (1, "it must be at least 1"),
    "threads": (1, "it must be at least 1"),
    "mixtures": (0, "it must not be negative (0 leaves them out)"),
    "pooled_epochs": (0, "it must not be negative (0 leaves them out)"),
    "batch_size": (2, "similarities within a batch need at least 2 texts"),
    "max_length": (3, "a text needs at least 3 tokens, two of them special"),
    "positions": (3, "a text needs at least 3 tokens, two of them special"),
}
"""The smallest value of each whole-number option, and why."""
