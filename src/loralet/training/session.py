"""A session: a backbone loaded onto a backend, the corpus in its tokens, packs trained on it, and their artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.artifacts.artifact import Artifact, ArtifactRole, Measured, Provenance
from loralet.backends.base import Backend, BackendInfo, LoadedEncoder
from loralet.backends.choice import choose_backend
from loralet.config import ComputeOptions, DataOptions, TrainingOptions
from loralet.errors import CheckpointError
from loralet.events import Event, Stage
from loralet.hub.backbone import Backbone, load_backbone
from loralet.inference.evaluation import logits_of
from loralet.runs.environment import SessionBackend, peak_memory
from loralet.runs.results import RunResult
from loralet.runs.run import Run
from loralet.runs.selection import rank_of_scores
from loralet.tasks.base import Scores, Task
from loralet.training.corpus import Corpus, CorpusRows, Rows, corpus_rows
from loralet.training.halving import Exits
from loralet.training.loop import STAY, RunState, TrainingState, train
from loralet.training.packs import build_pack

Listen = Callable[[Event], None]


@dataclass
class Row:
    """A row of the results as it comes together.

    Args:
        run: its configuration.
        trainable, total: trained parameters, and all of the model.
        steps, converged_step, seconds, memory, status: how training went; seconds are the run's share of its pack's time,
            memory is in bytes.
        validation, test: its scores on the whole splits.
        tensors: what it learned (by slot name), empty for a baseline and for a run that diverged before its first check.
        predict: targets of texts, for a model without an encoder.
        members: ids of the runs that an average or an ensemble is made of.
    """

    run: Run
    trainable: int = 0
    total: int = 0
    steps: int | None = None
    converged_step: int | None = None
    seconds: float | None = None
    memory: int | None = None
    status: str = "finished"
    validation: Scores | None = None
    test: Scores | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    predict: Callable[[Sequence[str]], np.ndarray] | None = None
    members: tuple[str, ...] = ()

    def result(self) -> RunResult:
        """The row as results.json records it; what does not apply is None."""
        run, adapted = self.run, self.run.role == "lora"
        trained = adapted or run.role in ("linear-probe", "full")
        return RunResult(
            id=run.id,
            model=run.model or None,
            role=run.role,
            adapter=run.adapter if adapted or run.role == "average" else None,
            learning_rate=run.lr if trained else None,
            lr_ratio=run.lr_ratio if trained else None,
            seed=run.seed if run.model and not self.members else None,
            members=self.members or None,
            trainable_parameters=self.trainable,
            total_parameters=self.total,
            steps=self.steps,
            converged_step=self.converged_step,
            train_seconds=self.seconds,
            peak_memory_bytes=self.memory,
            status=self.status,
            validation=self.validation,
            test=self.test,
        )


@dataclass(frozen=True)
class Loaded:
    """A backbone's weights on the backend that computes packs of one adapter method."""

    backend: Backend
    encoder: LoadedEncoder
    info: BackendInfo


@dataclass(frozen=True)
class Session:
    """A backbone ready for training.

    Args:
        backbone: as loaded.
        loaded: its weights on a backend, by adapter method.
        rows: the corpus in its tokens.
        task: what the labels mean.
        training: the options.
        compute: where and how to compute.
    """

    backbone: Backbone
    loaded: Mapping[str, Loaded]
    rows: CorpusRows
    task: Task
    training: TrainingOptions
    compute: ComputeOptions

    def on(self, pack: Pack) -> Loaded:
        """Where a pack is computed."""
        return self.loaded[pack.method.name]

    @property
    def item(self) -> int:
        """Bytes of one number of the encoder's arithmetic."""
        return next(iter(self.loaded.values())).encoder.weights["embeddings.word"].element_size()

    @property
    def device(self) -> torch.device:
        """Where packs are computed."""
        return next(iter(self.loaded.values())).backend.device

    @property
    def backends(self) -> list[SessionBackend]:
        """What the run folder records."""
        return [
            SessionBackend(self.backbone.name, info)
            for info in {str(x.info): x.info for x in self.loaded.values()}.values()
        ]

    def pack(self, runs: Sequence[Run]) -> Pack:
        """The pack of these runs."""
        family, training = self.backbone.family, self.training
        return build_pack(
            runs, self.backbone.table, self.task.outputs, training.head, training.head_dropout, family.pooling
        )

    def start(self, runs: Sequence[Run]) -> TrainingState:
        """A pack of these runs before its first step."""
        pack = self.pack(runs)
        loaded = self.on(pack)
        return TrainingState.start(loaded.backend, loaded.encoder, self.task, pack, runs, self.training.weight_decay)

    def logits(self, runs: Sequence[Run], tensors: Sequence[Mapping[str, Tensor]], rows: Rows) -> Tensor:
        """Logits ``[k m c]`` of runs that have these tensors; those that can share a pass do."""
        shared: dict[str, list[int]] = {}
        for i, run in enumerate(runs):
            shared.setdefault(run.id if run.role == "full" else run.adapter.method, []).append(i)
        pieces: dict[int, Tensor] = {}
        for members in shared.values():
            pack = self.pack([runs[i] for i in members])
            loaded = self.on(pack)
            parameters = pack.fill([tensors[i] for i in members]).to(loaded.backend.device)
            forward = loaded.encoder.program(pack).logits(parameters)
            pieces |= dict(zip(members, logits_of(loaded.backend, forward, rows.tokens, len(members)), strict=True))
        return torch.stack([pieces[i] for i in range(len(runs))])


def open_session(
    model: str,
    corpus: Corpus,
    training: TrainingOptions,
    reading: DataOptions,
    compute: ComputeOptions,
    tell: Listen,
    methods: Sequence[str] = ("lora",),
) -> Session:
    """Load a backbone, choose its backend and tokenise the corpus for it.

    Args:
        model: the backbone's name.
        corpus: the data.
        training, reading, compute: options.
        tell: hears what goes on, the backend among it.
        methods: adapter methods of the runs to come.

    Raises:
        CheckpointError, HubError: the backbone cannot be loaded, or has no pooler where the head needs one.
        ConfigError: the backend that is asked for cannot be had.
    """
    tell(Stage(f"loading {model}"))
    backbone = load_backbone(model)
    if training.head == "pooler" and not backbone.has_pooler:
        raise CheckpointError(
            f"{model} has no pooler; choose --head mean, or --head trained-pooler, which starts a new one"
        )
    loaded: dict[str, Loaded] = {}
    by_line: dict[str, Loaded] = {}
    for method in dict.fromkeys(methods):
        chosen = choose_backend(backbone.table, compute.precision, compute.backend, [method])
        if chosen.announcement not in by_line:
            tell(Stage(chosen.announcement))
            encoder = chosen.backend.load(backbone.weights, backbone.table, chosen.dtype)
            by_line[chosen.announcement] = Loaded(chosen.backend, encoder, chosen.info)
        loaded[method] = by_line[chosen.announcement]
    tell(Stage(f"tokenising {len(corpus.train) + len(corpus.validation):,} rows"))
    rows = corpus_rows(corpus, backbone, reading.max_length)
    return Session(backbone, loaded, rows, corpus.dataset.task, training, compute)


def train_pack(session: Session, runs: Sequence[Run], tell: Listen, exits: Exits = STAY) -> list[Row]:
    """Train a pack; of each run's best and last state, the one that the whole validation split prefers is kept."""
    state = session.start(runs)
    trainable = {run.id: state.pack.trainable(i) for i, run in enumerate(runs)}
    for event in train(state, session.rows.train, session.rows.sample, session.training, runs[0].seed, exits):
        tell(event)
    memory = peak_memory()
    some = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    tell(Stage(f"measuring {some} on all {len(session.rows.validation):,} validation rows"))
    ended = sorted(state.ended, key=lambda s: runs.index(s.run))
    rows = [_row(session, s, trainable[s.run.id], memory) for s in ended]
    _keep_better_states(session, rows, ended)
    return rows


def _row(session: Session, s: RunState, trainable: int, memory: int) -> Row:
    own = sum(tensor.numel() for name, tensor in s.last.items() if name not in session.backbone.weights)
    total = session.backbone.parameters + own
    return Row(s.run, trainable, total, s.steps, s.converged_step, s.seconds, memory, s.status or "finished")


def _keep_better_states(session: Session, rows: Sequence[Row], ended: Sequence[RunState]) -> None:
    """Give each row the better of its run's best and last state, by the whole validation split."""
    candidates = [
        (row, tensors)
        for row, s in zip(rows, ended, strict=True)
        for tensors in ((s.best, s.last) if s.status != "diverged" else (s.best,))
        if tensors
    ]
    if not candidates:
        return
    task, validation = session.task, session.rows.validation
    every = session.logits([row.run for row, _ in candidates], [tensors for _, tensors in candidates], validation)
    for (row, tensors), logits in zip(candidates, every, strict=True):
        scores = task.score(logits, validation.targets.numpy())
        if row.validation is None or _rank(task, scores) > _rank(task, row.validation):
            row.validation, row.tensors = scores, tensors


def _rank(task: Task, scores: Scores) -> tuple[float, float, int]:
    return rank_of_scores(scores, task.selection)


def make_artifact(row: Row, session: Session, corpus: Corpus, source: str, reading: DataOptions) -> Artifact:
    """What a trained row leaves behind, with how it was trained and its scores on validation.

    Args:
        row: the row.
        session: that trained it.
        corpus: the data.
        source: the data set, as the user named it.
        reading: the options of reading it.
    """
    run, backbone = row.run, session.backbone
    roles: dict[str, ArtifactRole] = {"linear-probe": "linear-probe", "full": "full"}
    measured = {"validation": Measured(len(corpus.validation), row.validation)} if row.validation else {}
    return Artifact(
        id=run.id,
        role=roles.get(run.role, "lora"),
        labels=session.task.labels,
        adapter=run.adapter,
        head=session.training.head,
        max_length=min(reading.max_length, backbone.table.longest),
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        architecture=backbone.family.model_type,
        data_fingerprint=corpus.dataset.fingerprint,
        tensors=row.tensors,
        task=session.task.name,
        pooling=backbone.family.pooling,
        provenance=Provenance(
            source=source,
            train_rows=len(corpus.train),
            validation_rows=len(corpus.validation),
            split_seed=reading.split_seed,
            validation_fraction=reading.validation_fraction,
            lr=run.lr,
            lr_ratio=run.lr_ratio,
            seed=run.seed,
            steps_taken=row.steps,
            training=session.training,
            compute=session.compute,
        ),
        metrics=measured,
    )


def with_scores(artifact: Artifact, split: str, rows: int, scores: Scores) -> Artifact:
    """The artifact with its scores on a split alone."""
    return replace(artifact, metrics={split: Measured(rows, scores)})
