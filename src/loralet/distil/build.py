"""Run a distillation from its options and write the student's folder.

config.json, model.safetensors, tokenizer files   the student
README.md                 model card
config.toml               options
environment.json          versions and machine
metrics.jsonl             one line per event, except steps
checkpoint.safetensors    state after the last complete epoch; deleted when the student is complete
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from loralet.atomic import new_file
from loralet.backends.choice import choose_backend
from loralet.cache import writable_cache_folder
from loralet.config import DistillConfig
from loralet.config.toml import options_text, read_options
from loralet.data.tokens import Tokens, tokenise
from loralet.distil.card import card
from loralet.distil.checkpoint import NAME, load_checkpoint, save_checkpoint
from loralet.distil.forward import Arithmetic
from loralet.distil.mixtures import with_mixtures
from loralet.distil.save import save_student
from loralet.distil.student import given_student, matched_layers, start_projections, start_student, student_table
from loralet.distil.teacher import sentence_targets, teacher_targets
from loralet.distil.texts import Texts, hold_out, read_texts
from loralet.distil.train import DistillationData, DistilState, Student, distil
from loralet.errors import ConfigError, RunError
from loralet.events import Advanced, EpochEnded, Event, Stage
from loralet.hub.backbone import Backbone, load_backbone
from loralet.runs.environment import SessionBackend, environment
from loralet.runs.folder import RunFolder, new_run_folder

Listen = Callable[[Event], None]
FREE = ("compute", "resume", "out")
"""Options that may change on resume. Of ``compute``, the precision may not change."""


def build_student(config: DistillConfig, listen: Listen) -> EpochEnded:
    """Distil a student and write its folder.

    Args:
        config: the options.
        listen: receives every event.

    Returns:
        The last epoch.

    Raises:
        ConfigError: options that do not fit the teacher, or that differ from those of the resumed distillation.
        CheckpointError, HubError, DataError: teacher or texts cannot be used; raised before training starts.
        RunError: the folder is not empty, or its student is complete.
        TrainingError: the loss is no longer finite.
    """
    where = open_folder(config)
    teacher = load_backbone(config.teacher)
    table = student_table(config, teacher.table)
    layers = matched_layers(teacher.table.layers, table.layers, config.match)
    listen(Stage(f"reading {', '.join(config.text)}"))
    texts = read_texts(config.text, config.text_column)
    train, held_out = hold_out(len(texts.texts), config.held_out, config.seed)
    longest = min(config.max_length, teacher.table.longest, table.longest)
    tokens = tokenise(texts.texts, teacher.tokenizer, longest, writable_cache_folder())
    chosen = choose_backend(table, config.compute.precision, config.compute.backend)
    listen(Stage(chosen.announcement))
    arithmetic = Arithmetic(chosen.backend.device, chosen.dtype, chosen.backend.attention)
    student = Student(table, arithmetic)
    state = _start(config, teacher, student, tokens, train)
    tokens, data = with_mixtures(tokens, train, config.mixtures, table.vocabulary, longest, config.seed)
    told = load_checkpoint(where, state) if (where / NAME).exists() else 0
    if (where / "metrics.jsonl").exists():
        os.truncate(where / "metrics.jsonl", told)
    found = environment((SessionBackend(config.out, chosen.info),))
    folder = RunFolder(where, options_text(config), found)

    def tell(event: Event) -> None:
        if not isinstance(event, Advanced):
            folder.record(event)
        listen(event)

    try:
        tell(Stage(_summary(texts, tokens, len(train), len(data) - len(train), state)))
        if config.token_states:
            targets = teacher_targets(teacher, tokens, layers, arithmetic, writable_cache_folder(), tell)
        else:
            targets = sentence_targets(teacher, tokens, config.compute, writable_cache_folder(), tell)
        for event in distil(state, student, DistillationData(tokens, targets, data, held_out), config):
            tell(event)
            if isinstance(event, EpochEnded):
                save_checkpoint(where, state, (where / "metrics.jsonl").stat().st_size)
    finally:
        folder.close()
    weights = {name: t.detach().cpu() for name, t in state.parameters.items() if not name.startswith("projections.")}
    with new_file(where / "README.md") as temporary:
        text = card(config, table, sum(t.numel() for t in weights.values()), layers, texts, state.history)
        temporary.write_text(text, encoding="utf-8")
    save_student(where, weights, table, teacher.tokenizer, config.half)
    (where / NAME).unlink()
    return state.history[-1]


def open_folder(config: DistillConfig) -> Path:
    """The student's folder: a new one, or, with ``resume``, the folder of an interrupted distillation.

    Raises:
        RunError: the folder is not empty and ``resume`` is off, or its student is complete.
        ConfigError: the distillation was started with other options; the message lists them.
    """
    folder = Path(config.out)
    if not (config.resume and (folder / "config.toml").exists()):
        return new_run_folder(config.out, "student")
    if (folder / "config.json").exists():
        raise RunError(f"{folder}: the student is complete; there is nothing to resume")
    before = read_options(folder / "config.toml", DistillConfig)
    names = (option.name for option in dataclasses.fields(config) if option.name not in FREE)
    changed = [
        f"{name} is {getattr(config, name)!r}, it was {getattr(before, name)!r}"
        for name in names
        if getattr(config, name) != getattr(before, name)
    ]
    if config.compute.precision != before.compute.precision:
        changed.append(f"precision is {config.compute.precision!r}, it was {before.compute.precision!r}")
    if changed:
        raise ConfigError.listing([f"{change}: options cannot change on resume" for change in changed], str(folder))
    return folder


def _start(
    config: DistillConfig, teacher: Backbone, student: Student, tokens: Tokens, train: np.ndarray
) -> DistilState:
    """The initial state of the student and its projections."""
    table = student.table
    kept = np.repeat(np.isin(np.arange(len(tokens)), train), tokens.lengths)
    counts = np.bincount(tokens.ids[kept], minlength=table.vocabulary)
    if config.start:
        parameters = given_student(load_backbone(config.start), teacher, table)
    else:
        parameters = start_student(teacher, table, counts, config.seed)
    matched = table.layers if config.token_states else 0
    parameters |= start_projections(table.width, teacher.table.width, matched, config.seed)
    return DistilState.start({name: t.to(student.arithmetic.device) for name, t in parameters.items()})


def _summary(texts: Texts, tokens: Tokens, train: int, mixtures: int, state: DistilState) -> str:
    mixed = f" and {mixtures:,} mixtures" if mixtures else ""
    duplicates = f" (duplicates left out: {texts.repeated:,})" if texts.repeated else ""
    held_out = f"{len(texts.texts) - train:,} held out{duplicates}"
    resumed = f"; resuming after epoch {state.epoch}" if state.epoch else ""
    return f"{train:,} training texts{mixed}, {held_out}, {len(tokens.ids):,} tokens{resumed}"
