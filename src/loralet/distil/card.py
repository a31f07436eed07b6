"""The student's model card."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from loralet import __version__
from loralet.config import DistillConfig
from loralet.distil.losses import SHARES
from loralet.distil.mixtures import REPLACED
from loralet.distil.texts import Texts
from loralet.events import EpochEnded
from loralet.models.table import EncoderTable

OMITTED = ("teacher", "teacher_name", "text", "out", "compute", "resume")
"""Options that the card's command leaves out or says in its own way."""


def card(
    config: DistillConfig,
    table: EncoderTable,
    parameters: int,
    layers: Sequence[int],
    texts: Texts,
    history: Sequence[EpochEnded],
) -> str:
    """The card as Markdown: what the student is, what it was made from, and how close it came.

    Args:
        config: the options.
        table: the student's sizes.
        parameters: numbers in the student, pooler included.
        layers: the teacher's layer that each of the student's matches.
        texts: what was read.
        history: every epoch, epoch 0 first.
    """
    teacher = teacher_name(config)
    front = [f"license: {config.licence}"] * bool(config.licence) + [
        f"base_model: {teacher}",
        "library_name: transformers",
        "pipeline_tag: feature-extraction",
    ]
    last = history[-1]
    files = [f"* {name}: {count:,} texts" for name, count in texts.counts]
    if texts.repeated:
        files.append(f"* {texts.repeated:,} of them had been read before and were left out")
    weights = ", ".join(f"{share:g} x {name.replace('_', ' ')}" for name, share in SHARES.items())
    return "\n".join(
        [
            "---",
            *front,
            "---",
            "",
            f"# {Path(config.out).resolve().name}",
            "",
            f"A BERT of {table.layers} layers, {table.width} wide, {table.heads} heads, {table.feed_forward} feed-forward, "
            f"{parameters:,} parameters, "
            f"distilled from {teacher} with loralet {__version__}. Vocabulary and tokenizer are the teacher's. It was not pre-trained otherwise.",
            "",
            f"Licence: {config.licence or 'not stated; the licence of the teacher applies'}. No text is part of the model's files.",
            "",
            "## Texts",
            "",
            *files,
            f"* {len(texts.texts):,} different texts, {config.held_out:.0%} of them held out; cut to {config.max_length} tokens; "
            "labels were not read",
            *_mixed(config),
            "",
            "## Training",
            "",
            "Word and position embeddings started on the principal axes of the teacher's, weighted by how often each token stands in the texts. "
            f"Layers 1 to {table.layers} match the teacher's layers {', '.join(map(str, layers))}. "
            f"{config.epochs} epochs at a peak learning rate of {config.lr:g}, then {config.pooled_epochs} with the pooled losses at "
            f"{config.pooled_lr:g}; {last.step:,} steps of {config.batch_size} texts, {sum(e.seconds for e in history) / 60:.0f} minutes.",
            "",
            f"The loss is {weights}. Tokens, sentence and pooled are 1 - cosine; similarity is the mean squared difference of the cosines "
            "between all pairs of a batch.",
            "",
            "## Losses on the held-out texts",
            "",
            *_table(history),
            "",
            "## Command",
            "",
            "```",
            command(config),
            "```",
            "",
        ]
    )


def _mixed(config: DistillConfig) -> list[str]:
    share = f"{REPLACED:.0%} of their tokens replaced by tokens drawn from the vocabulary"
    return [
        f"* {config.mixtures} mixtures of each text trained on: its beginning joined to another's end, {share}"
    ] * bool(config.mixtures)


def teacher_name(config: DistillConfig) -> str:
    """What the card calls the teacher: the name given, a folder's own name, or the hub id."""
    return config.teacher_name or (
        Path(config.teacher).resolve().name if Path(config.teacher).is_dir() else config.teacher
    )


def command(config: DistillConfig) -> str:
    """The command that these options stand for, with files by name and defaults left out."""
    words = [
        "loralet",
        "distill",
        teacher_name(config),
        "--text",
        *(Path(file).name for file in config.text),
        "--out",
        Path(config.out).resolve().name,
    ]
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if option.name in OMITTED or value == option.default:
            continue
        flag = f"--{option.name.replace('_', '-')}"
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _table(history: Sequence[EpochEnded]) -> list[str]:
    names = (*SHARES, "total")
    lines = [f"| epoch | {' | '.join(name.replace('_', ' ') for name in names)} |", f"|{'---:|' * (len(names) + 1)}"]
    for event in history:
        values = (f"{event.held_out[name]:.4f}" if name in event.held_out else "" for name in names)
        lines.append(f"| {event.epoch} | {' | '.join(values)} |")
    return lines
