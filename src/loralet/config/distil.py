"""Building a small encoder from a larger one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    epochs: int = 15
    """Passes over the texts that match token states and sentence embeddings."""
    pooled_epochs: int = 8
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
        needed = {"teacher": "a folder or a hub id", "text": "one file or more with --text", "out": "the student's folder with --out"}
        yield from (f"{name} is empty: give {what}" for name, what in needed.items() if not getattr(self, name))
        yield from student_problems(self.layers, self.width, self.heads, self.feed_forward, self.match)
        for name in ("epochs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}: it must be at least 1"
        if self.pooled_epochs < 0:
            yield f"pooled_epochs is {self.pooled_epochs}: it must not be negative (0 leaves them out)"
        for name in ("lr", "pooled_lr"):
            if not getattr(self, name) > 0:
                yield f"{name} is {getattr(self, name)}: it must be above 0"
        if self.batch_size < 2:
            yield f"batch_size is {self.batch_size}: similarities within a batch need at least 2 texts"
        for name in ("max_length", "positions"):
            if getattr(self, name) < 3:
                yield f"{name} is {getattr(self, name)}: a text needs at least 3 tokens, two of them special"
        if not 0 < self.held_out < 1:
            yield f"held_out is {self.held_out}: it must lie between 0 and 1"
