"""A session: a backbone on a backend, with the tokenised corpus; training of packs, and artifacts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.artifacts.artifact import OUT_OF_FOLD, Artifact, ArtifactRole, Measured, Provenance
from loralet.backends.base import Backend, LoadedEncoder
from loralet.backends.choice import choose_backend
from loralet.backends.info import BackendInfo
from loralet.config import ComputeOptions, DataOptions, Head, TrainingOptions
from loralet.errors import CheckpointError
from loralet.events import Event, Stage
from loralet.hub.backbone import Backbone, load_backbone
from loralet.inference.evaluation import logits_of
from loralet.models.pooling import HeadKind
from loralet.runs.environment import SessionBackend, peak_memory
from loralet.runs.results import TextLengths
from loralet.runs.run import Run
from loralet.runs.selection import rank_of_scores, selection_of
from loralet.tasks.base import Task
from loralet.training.corpus import Corpus, CorpusRows, Rows, corpus_rows, text_notes
from loralet.training.halving import Exits
from loralet.training.loop import STAY, UNSAVED, PackSaver, RunState, TrainingState, train
from loralet.training.memory import Load, budget, evaluation_bytes
from loralet.training.packs import build_pack
from loralet.training.row import Row

LOGGER = logging.getLogger("loralet")
Listen = Callable[[Event], None]


@dataclass(frozen=True)
class Loaded:
    """A backbone's weights on the backend for one adapter method."""

    backend: Backend
    encoder: LoadedEncoder
    info: BackendInfo


@dataclass(frozen=True)
class Session:
    """A backbone ready for training.

    Args:
        backbone: the backbone.
        loaded: the backbone's weights on a backend, by adapter method.
        rows: the tokenised corpus.
        lengths: lengths of the training texts.
        task: the task.
        training: training options.
        head: head of the classifiers.
        compute: compute options.
        memory: memory limit of a forward pass in bytes.
        teachers: the teachers of a taught run; empty for others.
        unlabelled: texts without labels that a taught run reads; None for other runs.
    """

    backbone: Backbone
    loaded: Mapping[str, Loaded]
    rows: CorpusRows
    lengths: TextLengths
    task: Task
    training: TrainingOptions
    head: HeadKind
    compute: ComputeOptions
    memory: int
    teachers: tuple[str, ...] = ()
    unlabelled: int | None = None

    def on(self, pack: Pack) -> Loaded:
        """The loaded backbone for a pack."""
        return self.loaded[pack.method.name]

    @property
    def item(self) -> int:
        """Bytes per value in the encoder's dtype."""
        return next(iter(self.loaded.values())).encoder.weights["embeddings.word"].element_size()

    @property
    def device(self) -> torch.device:
        """The device of the packs."""
        return next(iter(self.loaded.values())).backend.device

    @property
    def backends(self) -> list[SessionBackend]:
        """The backends recorded in the run folder."""
        return [
            SessionBackend(self.backbone.name, info)
            for info in {str(x.info): x.info for x in self.loaded.values()}.values()
        ]

    def pack(self, runs: Sequence[Run]) -> Pack:
        """The pack of these runs."""
        family, training = self.backbone.family, self.training
        return build_pack(
            runs, self.backbone.table, self.task.outputs, self.head, training.head_dropout, family.pooling
        )

    def start(self, runs: Sequence[Run]) -> TrainingState:
        """The training state of a pack before the first step."""
        pack = self.pack(runs)
        loaded = self.on(pack)
        return TrainingState.start(loaded.backend, loaded.encoder, self.task, pack, runs, self.training.weight_decay)

    def logits(self, runs: Sequence[Run], tensors: Sequence[Mapping[str, Tensor]], rows: Rows) -> np.ndarray:
        """Logits ``[k m c]`` of runs with these tensors; runs that share an encoder and fit share a forward pass."""
        pieces: dict[int, np.ndarray] = {}
        for members in self._shared(runs):
            pack = self.pack([runs[i] for i in members])
            loaded = self.on(pack)
            parameters = pack.fill([tensors[i] for i in members]).to(loaded.backend.device)
            forward = loaded.encoder.program(pack).logits(parameters)
            pieces |= dict(zip(members, logits_of(loaded.backend, forward, rows.tokens, len(members)), strict=True))
        return np.stack([pieces[i] for i in range(len(runs))])

    def calibrated_logits(self, rows: Sequence[Row], on: Rows) -> np.ndarray:
        """Logits ``[k m c]`` of trained rows, divided by their temperatures."""
        logits = self.logits([row.run for row in rows], [row.tensors for row in rows], on)
        temperatures = np.array([row.temperature for row in rows], logits.dtype)
        return np.asarray(logits / temperatures[:, None, None])

    def _shared(self, runs: Sequence[Run]) -> list[list[int]]:
        """Positions of the runs by forward pass. A fully fine-tuned run has an encoder, and so a pass, to itself."""
        groups: list[list[int]] = [[i] for i, run in enumerate(runs) if run.role == "full"]
        for method in dict.fromkeys(run.adapter.method for run in runs if run.role != "full"):
            group: list[int] = []
            for i, run in enumerate(runs):
                if run.role == "full" or run.adapter.method != method:
                    continue
                if group and evaluation_bytes([runs[j] for j in (*group, i)], self.load) > self.memory:
                    groups.append(group)
                    group = []
                group.append(i)
            groups.append(group)
        return groups

    @property
    def load(self) -> Load:
        """The size of a step, for the longest row of the training split."""
        train, training = self.rows.train, self.training
        return Load(
            table=self.backbone.table,
            outputs=self.task.outputs,
            head=self.head,
            batch_size=min(training.batch_size, len(train)),
            tokens=int(train.tokens.lengths.max()),
            item=self.item,
            pooling=self.backbone.family.pooling,
            native=tuple(method for method, loaded in self.loaded.items() if loaded.backend.name == "native"),
        )


def open_session(
    model: str,
    corpus: Corpus,
    training: TrainingOptions,
    reading: DataOptions,
    compute: ComputeOptions,
    tell: Listen,
    methods: Sequence[str] = ("lora",),
    memory: float | None = None,
) -> Session:
    """Load a backbone, choose its backend and tokenise the corpus for it.

    Args:
        model: name of the backbone.
        corpus: the data.
        training, reading, compute: options.
        tell: called with events, including the choice of the backend.
        methods: adapter methods of the runs.
        memory: memory limit in GiB; None: a share of the free memory.

    Raises:
        CheckpointError, HubError: the backbone cannot be loaded, or it lacks a pooler that the head needs.
        ConfigError, DataError: the requested backend is not available; see :func:`.corpus.text_notes`.
    """
    tell(Stage(f"loading {model}"))
    backbone = load_backbone(model)
    kind, wanted = backbone.config.get("problem_type"), corpus.dataset.task.problem_type
    if kind not in (None, wanted):
        LOGGER.warning("%s: problem_type is %r; a new classifier for %s takes its place", model, kind, wanted)
    head = chosen_head(backbone, training.head)
    if training.head == "auto" and head != "pooler":
        reason = "was trained for it" if head == "mean" else "has no pooler"
        tell(Stage(f"head: {head}, as the backbone {reason}"))
    loaded: dict[str, Loaded] = {}
    by_line: dict[str, Loaded] = {}
    for method in dict.fromkeys(methods):
        chosen = choose_backend(backbone.table, compute.precision, compute.backend, [method], training=True)
        if chosen.announcement not in by_line:
            tell(Stage(chosen.announcement))
            encoder = chosen.backend.load(backbone.weights, backbone.table, chosen.dtype)
            by_line[chosen.announcement] = Loaded(chosen.backend, encoder, chosen.info)
        loaded[method] = by_line[chosen.announcement]
    tell(Stage(f"tokenising {len(corpus.train) + corpus.validation_rows:,} rows"))
    rows, lengths = corpus_rows(corpus, backbone, reading.max_length)
    for note in text_notes(rows, lengths, backbone, reading.strict):
        tell(Stage(note))
    limit = budget(memory, next(iter(loaded.values())).backend.device)
    return Session(backbone, loaded, rows, lengths, corpus.dataset.task, training, head, compute, limit)


def chosen_head(backbone: Backbone, head: Head) -> HeadKind:
    """The head of the classifiers: the given one; for ``auto``, the one that the backbone was trained for.

    This is the mean over the tokens for encoders of sentence-transformers that say so, otherwise the backbone's pooler,
    or a new one if it has none, as in transformers' classifiers.

    Raises:
        CheckpointError: the frozen pooler is asked for, and there is none.
    """
    if head == "auto":
        return "mean" if backbone.pools_mean else "pooler" if backbone.has_pooler else "trained-pooler"
    if head == "pooler" and not backbone.has_pooler:
        raise CheckpointError(
            f"{backbone.name} has no pooler; use --head mean, or --head trained-pooler, which trains a new one"
        )
    return head


def train_pack(
    session: Session, runs: Sequence[Run], tell: Listen, exits: Exits = STAY, saver: PackSaver = UNSAVED
) -> list[Row]:
    """Train a pack; keep the better of each run's best and last state on the whole validation split.

    Arguments as for :func:`run_pack`.
    """
    rows, ended = run_pack(session, runs, tell, exits, saver)
    some = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    tell(Stage(f"measuring {some} on all {len(session.rows.validation):,} validation rows"))
    _keep_better_states(session, rows, ended)
    return rows


def run_pack(
    session: Session, runs: Sequence[Run], tell: Listen, exits: Exits = STAY, saver: PackSaver = UNSAVED
) -> tuple[list[Row], list[RunState]]:
    """Train a pack to its end.

    Args:
        session: the backbone and the corpus.
        runs: the runs of the pack.
        tell: called with every event.
        exits: exit conditions other than patience.
        saver: restores and saves the state of the pack.

    Returns:
        One row per run, without tensors and scores, and the state that it ended in, both in the order of the runs.
    """
    state = session.start(runs)
    trainable = {run.id: state.pack.trainable(i) for i, run in enumerate(runs)}
    saver.restore(state)
    rows, seed = session.rows, runs[0].seed
    for event in train(state, rows.train, rows.sample, session.training, seed, exits, saver):
        tell(event)
    memory = peak_memory()
    ended = sorted(state.ended, key=lambda s: runs.index(s.run))
    return [_row(session, s, trainable[s.run.id], memory) for s in ended], ended


def _row(session: Session, s: RunState, trainable: int, memory: int) -> Row:
    own = sum(tensor.numel() for name, tensor in s.last.items() if name not in session.backbone.weights)
    total = session.backbone.parameters + own
    return Row(s.run, trainable, total, s.steps, s.converged_step, s.seconds, memory, s.status or "finished")


def _keep_better_states(session: Session, rows: Sequence[Row], ended: Sequence[RunState]) -> None:
    """Set each row to the better of its run's best and last state on the whole validation split; of equals, the last.

    The temperature of that state is fitted on the same rows.
    """
    candidates = [
        (row, tensors)
        for row, s in zip(rows, ended, strict=True)
        for tensors in ((s.best, s.last) if s.status != "diverged" else (s.best,))
        if tensors
    ]
    if not candidates:
        return
    task, validation = session.task, session.rows.validation
    selection = selection_of(session.training.select_by, task)
    every = session.logits([row.run for row, _ in candidates], [tensors for _, tensors in candidates], validation)
    targets, kept = validation.targets.numpy(), dict[str, np.ndarray]()
    for (row, tensors), logits in zip(candidates, every, strict=True):
        scores = task.score(logits, targets)
        if row.validation is None or rank_of_scores(scores, selection) >= rank_of_scores(row.validation, selection):
            row.validation, row.tensors, kept[row.run.id] = scores, tensors, logits
    for row in rows:
        if row.run.id in kept:
            row.measure_validation(task, kept[row.run.id], targets)


def make_artifact(row: Row, session: Session, corpus: Corpus, source: str, reading: DataOptions) -> Artifact:
    """The artifact of a trained row, with provenance and validation scores.

    Args:
        row: the row.
        session: the session that trained it.
        corpus: the data.
        source: the data set, as named by the user.
        reading: data options.
    """
    run, backbone = row.run, session.backbone
    roles: dict[str, ArtifactRole] = {"linear-probe": "linear-probe", "full": "full"}
    split = OUT_OF_FOLD if corpus.folds else "validation"
    classes = row.classes.get("validation", ())
    measured = {split: Measured(len(corpus.validation), row.validation, classes)} if row.validation else {}
    return Artifact(
        id=run.id,
        role=roles.get(run.role, "lora"),
        labels=session.task.labels,
        adapter=run.adapter,
        head=session.head,
        max_length=session.lengths.max_length,
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        architecture=backbone.family.model_type,
        data_fingerprint=corpus.dataset.fingerprint,
        tensors=row.tensors,
        task=session.task.name,
        label_values=session.task.values if session.task.values != session.task.labels else (),
        label_type=session.task.label_type,
        pooling=backbone.family.pooling,
        temperature=row.temperature,
        provenance=Provenance(
            source=source,
            backbone_commit=backbone.commit,
            train_rows=len(corpus.train),
            validation_rows=corpus.validation_rows,
            split_seed=reading.split_seed,
            validation_fraction=reading.validation_fraction,
            folds=corpus.folds or None,
            class_weights=corpus.class_weights,
            lr=run.lr,
            lr_ratio=run.lr_ratio,
            seed=run.seed,
            steps_taken=row.steps,
            training=session.training,
            compute=session.compute,
            teachers=session.teachers,
            unlabelled_rows=session.unlabelled,
            text_columns=corpus.dataset.text_columns,
            label_column=corpus.dataset.label_column,
        ),
        metrics=measured,
    )


def with_scores(artifact: Artifact, split: str, measured: Measured) -> Artifact:
    """A copy of the artifact with scores on one split only."""
    return replace(artifact, metrics={split: measured})
