"""Run a distillation from its options and write the student's folder.

config.json, model.safetensors, tokenizer files   the student
README.md                 model card
config.toml               options
environment.json          versions and machine
metrics.jsonl             one line per event, except steps
checkpoint.safetensors    state between two steps; deleted when the student is complete
lock                      while it is distilled: held by the process (loralet.runs.lock)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from loralet.atomic import new_file
from loralet.backends.choice import choose_backend
from loralet.cache import writable_cache_folder
from loralet.config import DistillConfig
from loralet.config.toml import options_text
from loralet.data.tokens import Tokens, tokenise
from loralet.distil.card import card
from loralet.distil.checkpoint import NAME as CHECKPOINT
from loralet.distil.checkpoint import DistilSaver, load_checkpoint
from loralet.distil.folder import claim_student
from loralet.distil.forward import Arithmetic
from loralet.distil.mixtures import with_mixtures
from loralet.distil.save import save_student
from loralet.distil.student import given_student, matched_layers, start_projections, start_student, student_table
from loralet.distil.teacher import sentence_targets, teacher_targets
from loralet.distil.texts import Texts, hold_out, read_texts
from loralet.distil.train import DistillationData, DistilState, Student, distil
from loralet.events import Advanced, EpochEnded, Event, Stage
from loralet.hub.backbone import Backbone, load_backbone
from loralet.interrupts import Interrupts
from loralet.runs.environment import SessionBackend, continued, environment
from loralet.runs.folder import RunFolder

Listen = Callable[[Event], None]


def build_student(config: DistillConfig, listen: Listen, interrupts: Interrupts | None = None) -> EpochEnded:
    """Distil a student and write its folder, or continue an interrupted distillation.

    Args:
        config: the options.
        listen: receives every event.
        interrupts: the signals that end it, with a checkpoint.

    Returns:
        The last epoch.

    Raises:
        ConfigError: options that do not fit the teacher, or that differ from those of the continued distillation.
        CheckpointError, HubError, DataError: teacher or texts cannot be used; raised before training starts.
        RunError: the folder holds other files or a complete student, or another process writes into it.
        TrainingError: the loss is no longer finite.
        Interrupted: a signal has arrived.
    """
    with claim_student(config) as where:
        return _build(config, where, listen, interrupts or Interrupts())


def _build(config: DistillConfig, where: Path, listen: Listen, interrupts: Interrupts) -> EpochEnded:
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
    state = _start(config, teacher, student, layers, tokens, train)
    inputs = _inputs(config, teacher, tokens)
    tokens, data = with_mixtures(tokens, train, config.mixtures, table.vocabulary, longest, config.seed)
    events = load_checkpoint(where, state, inputs) if (where / CHECKPOINT).exists() else ""
    found = continued(where, environment((SessionBackend(config.out, chosen.info),)))
    folder = RunFolder(where, options_text(config), found, events.encode())

    def tell(event: Event) -> None:
        if not isinstance(event, Advanced):
            folder.record(event)
        listen(event)

    saver = DistilSaver(where, state, inputs, config.checkpoint_every, interrupts, listen)
    try:
        # What an interrupted distillation has recorded is not recorded again.
        (listen if events else tell)(Stage(_summary(texts, tokens, len(train), len(data) - len(train), state)))
        if config.token_states:
            targets = teacher_targets(teacher, tokens, layers, arithmetic, writable_cache_folder(), tell)
        else:
            targets = sentence_targets(teacher, tokens, config.compute, writable_cache_folder(), tell)
        interrupts.deferring = True
        for event in distil(state, student, DistillationData(tokens, targets, data, held_out), config):
            tell(event)
            saver.after(event)
    finally:
        folder.close()
    weights = {name: t.detach().cpu() for name, t in state.parameters.items() if not name.startswith("projections.")}
    with new_file(where / "README.md") as temporary:
        text = card(config, table, sum(t.numel() for t in weights.values()), teacher.table, texts, state.history)
        temporary.write_text(text, encoding="utf-8")
    save_student(where, weights, table, teacher.tokenizer, config.half, config.pooled_epochs > 0)
    (where / CHECKPOINT).unlink(missing_ok=True)
    return state.history[-1]


def _inputs(config: DistillConfig, teacher: Backbone, tokens: Tokens) -> str:
    """Hash of what a distillation reads: teacher, texts and start."""
    digest = hashlib.sha256(teacher.fingerprint.encode())
    for array in (tokens.starts, tokens.ids):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(load_backbone(config.start).fingerprint.encode() if config.start else b"")
    return digest.hexdigest()


def _start(
    config: DistillConfig, teacher: Backbone, student: Student, layers: Sequence[int], tokens: Tokens, train: np.ndarray
) -> DistilState:
    """The initial state of the student and its projections."""
    table = student.table
    kept = np.repeat(np.isin(np.arange(len(tokens)), train), tokens.lengths)
    counts = np.bincount(tokens.ids[kept], minlength=table.vocabulary)
    if config.start:
        parameters = given_student(load_backbone(config.start), teacher, table)
    else:
        parameters = start_student(teacher, table, layers, counts, config.seed)
    matched = table.layers if config.token_states else 0
    parameters |= start_projections(table.width, teacher.table.width, matched, config.seed)
    return DistilState.start({name: t.to(student.arithmetic.device) for name, t in parameters.items()})


def _summary(texts: Texts, tokens: Tokens, train: int, mixtures: int, state: DistilState) -> str:
    mixed = f" and {mixtures:,} mixtures" if mixtures else ""
    duplicates = f" (duplicates left out: {texts.repeated:,})" if texts.repeated else ""
    held_out = f"{len(texts.texts) - train:,} held out{duplicates}"
    resumed = f"; resuming after step {state.step}" if state.history else ""
    return f"{train:,} training texts{mixed}, {held_out}, {len(tokens.ids):,} tokens{resumed}"
