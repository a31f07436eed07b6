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
from loralet.distil.student import has_form, matched_layers
from loralet.distil.texts import Texts
from loralet.events import EpochEnded
from loralet.hub.models import resolve_model
from loralet.models.table import EncoderTable

OMITTED = ("teacher", "teacher_name", "start", "token_states", "text", "out", "compute", "checkpoint_every")
"""Options that the card's command omits or writes differently."""


def card(
    config: DistillConfig,
    table: EncoderTable,
    parameters: int,
    large: EncoderTable,
    texts: Texts,
    history: Sequence[EpochEnded],
) -> str:
    """The card as Markdown: the student, its teacher, its texts, and how close it is to the teacher.

    Args:
        config: the options.
        table: the student's layer table.
        parameters: number of parameters of the student, pooler included.
        large: the teacher's layer table.
        texts: the texts that were read.
        history: every epoch, epoch 0 first.
    """
    teacher = teacher_name(config)
    front = [f"license: {config.licence}"] * bool(config.licence) + [
        f"base_model: {teacher}",
        "library_name: transformers",
        "pipeline_tag: feature-extraction",
    ]
    last = history[-1]
    layers = matched_layers(large.layers, table.layers, config.match)
    files = [f"* {name}: {count:,} texts" for name, count in texts.counts]
    if texts.repeated:
        files.append(f"* duplicates left out: {texts.repeated:,}")
    known = {name for event in history for name in event.held_out}
    shares = {name: share for name, share in SHARES.items() if name in known}
    weights = ", ".join(f"{share:g} x {name.replace('_', ' ')}" for name, share in shares.items())
    return "\n".join(
        [
            "---",
            *front,
            "---",
            "",
            f"# {Path(config.out).resolve().name}",
            "",
            f"A BERT encoder with {table.layers} layers, width {table.width}, {table.heads} heads, "
            f"feed-forward width {table.feed_forward} and {parameters:,} parameters, "
            f"distilled from {teacher} with loralet {__version__}. "
            "Vocabulary and tokenizer are those of the teacher. There was no other pre-training.",
            "",
            f"Licence: {config.licence or 'not stated; the licence of the teacher applies'}. "
            "The model's files contain no texts.",
            "",
            "## Texts",
            "",
            *files,
            f"* {len(texts.texts):,} different texts, {config.held_out:.0%} of them held out; "
            f"truncated to {config.max_length} tokens; labels were not read",
            *_mixed(config),
            "",
            "## Training",
            "",
            f"{_start(config, has_form(table, large), layers)} {_matched(config, table, layers)} "
            f"{_epochs(config)}; "
            f"{last.step:,} steps of {config.batch_size} texts, {sum(e.seconds for e in history) / 60:.0f} minutes.",
            "",
            f"The loss is {weights}. Tokens, sentence and pooled are 1 - cosine; "
            "similarity is the mean squared difference of the cosines between all pairs of a batch.",
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


def _start(config: DistillConfig, copied: bool, layers: Sequence[int]) -> str:
    if config.start:
        return f"The weights were initialised with those of {_short(config.start)}."
    if copied:
        return (
            f"The weights were initialised with the teacher's layers {', '.join(map(str, layers))} and its embeddings."
        )
    return (
        "Word and position embeddings were initialised on the principal axes of the teacher's word embeddings, "
        "weighted by token frequency."
    )


def _epochs(config: DistillConfig) -> str:
    """Example: 4 epochs at a peak learning rate of 0.002, then 2 with the pooled losses at 0.001."""
    first = f"{config.epochs} epoch{'s' * (config.epochs > 1)} at a peak learning rate of {config.lr:g}"
    if not config.pooled_epochs:
        return first
    return f"{first}, then {config.pooled_epochs} with the pooled losses at {config.pooled_lr:g}"


def _matched(config: DistillConfig, table: EncoderTable, layers: Sequence[int]) -> str:
    if not config.token_states:
        return "Only sentence embeddings were matched, no token states."
    return f"Layers 1 to {table.layers} match the teacher's layers {', '.join(map(str, layers))}."


def _mixed(config: DistillConfig) -> list[str]:
    share = f"{REPLACED:.0%} of the tokens replaced by random tokens"
    return [
        f"* {config.mixtures} mixtures of each training text: its beginning joined to the end of another, {share}"
    ] * bool(config.mixtures)


def teacher_name(config: DistillConfig) -> str:
    """The teacher's name in the card: the given name, the folder's name, or the hub id."""
    return config.teacher_name or _short(config.teacher)


def _short(model: str) -> str:
    """The name of a folder, or the hub id."""
    return Path(model).resolve().name if Path(model).is_dir() else resolve_model(model)


def command(config: DistillConfig) -> str:
    """The command with these options. Files are given by name; defaults are left out."""
    words = [
        "loralet",
        "distill",
        teacher_name(config),
        "--text",
        *(Path(file).name for file in config.text),
        "--out",
        Path(config.out).resolve().name,
    ]
    if config.start:
        words += ["--start", _short(config.start)]
    words += ["--no-token-states"] * (not config.token_states)
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if option.name in OMITTED or value == option.default:
            continue
        flag = f"--{option.name.replace('_', '-')}"
        words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _table(history: Sequence[EpochEnded]) -> list[str]:
    known = {name for event in history for name in event.held_out}
    names = [name for name in (*SHARES, "total") if name in known]
    lines = [f"| epoch | {' | '.join(name.replace('_', ' ') for name in names)} |", f"|{'---:|' * (len(names) + 1)}"]
    for event in history:
        values = (f"{event.held_out[name]:.4f}" if name in event.held_out else "" for name in names)
        lines.append(f"| {event.epoch} | {' | '.join(values)} |")
    return lines
