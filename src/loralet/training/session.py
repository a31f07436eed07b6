"""The workbench that studies and the Python face share: a backbone made ready, a pack trained on it, the artifact of a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.artifacts.folder import Artifact
from loralet.backends.device import choose_device, choose_dtype, place
from loralet.config import DataOptions, TrainingOptions
from loralet.errors import CheckpointError
from loralet.events import Event, Stage
from loralet.hub.backbone import Backbone, load_backbone
from loralet.inference.evaluation import Scores, logits_of, score_logits
from loralet.models.encoder import Weights
from loralet.runs.folder import peak_memory
from loralet.runs.results import Row
from loralet.studies.plan import Plan
from loralet.training.corpus import Corpus, CorpusRows, corpus_rows
from loralet.training.halving import Exits
from loralet.training.loop import STAY, Rows, TrainingState, train
from loralet.training.packs import Run, build_pack

Listen = Callable[[Event], None]


@dataclass(frozen=True)
class Bench:
    """A backbone made ready for work: its weights in place, the corpus in its tokens."""

    backbone: Backbone
    weights: Weights
    rows: CorpusRows
    classes: int
    training: TrainingOptions

    def pack(self, runs: Sequence[Run]) -> Pack:
        return build_pack(
            runs, self.weights, self.backbone.shape, self.classes, self.training.head, self.training.head_dropout
        )

    def logits(self, runs: Sequence[Run], tensors: Sequence[dict[str, Tensor]], rows: Rows) -> Tensor:
        """Logits ``[k m c]`` of runs that have these tensors: full fine-tunings one by one, all others side by side."""
        pieces: dict[int, Tensor] = {}
        together = [i for i, run in enumerate(runs) if run.role != "full"]
        for members in [together] * bool(together) + [[i] for i, run in enumerate(runs) if run.role == "full"]:
            pack = self.pack([runs[i] for i in members])
            parameters = pack.fill([tensors[i] for i in members])
            logits = logits_of(pack.logits(parameters), rows.tokens, len(members), parameters.device)
            pieces |= dict(zip(members, logits, strict=True))
        return torch.stack([pieces[i] for i in range(len(runs))])


def make_bench(model: str, training: TrainingOptions, reading: DataOptions, corpus: Corpus, tell: Listen) -> Bench:
    """Load a backbone and tokenise the corpus for it.

    Raises:
        CheckpointError, HubError: the backbone cannot be loaded, or has no pooler where the head asks for one.
    """
    tell(Stage(f"loading {model}"))
    backbone = load_backbone(model)
    if training.head == "pooler" and not backbone.has_pooler:
        raise CheckpointError(
            f"{model} has no pooler; choose --head mean, or --head trained-pooler, which starts a new one"
        )
    device = choose_device()
    weights = place(backbone.weights, device, choose_dtype(training.precision, device))
    tell(Stage(f"tokenising {len(corpus.train) + len(corpus.validation):,} rows"))
    rows = corpus_rows(corpus, backbone, reading.max_length)
    return Bench(backbone, weights, rows, len(corpus.dataset.labels), training)


def train_pack(bench: Bench, runs: Sequence[Run], tell: Listen, exits: Exits = STAY) -> list[Row]:
    """Train a pack; of each run's best and last state, the one that the whole validation split prefers is kept."""
    pack = bench.pack(runs)
    trainable = {run.id: pack.trainable(i) for i, run in enumerate(runs)}
    state = TrainingState.start(pack, runs, bench.training.weight_decay)
    for event in train(state, bench.rows.train, bench.rows.sample, bench.training, runs[0].seed, exits):
        tell(event)
    memory = peak_memory()
    tell(
        Stage(
            f"measuring {len(runs)} run{'s' if len(runs) > 1 else ''} on all {len(bench.rows.validation):,} validation rows"
        )
    )
    rows: list[Row] = []
    for s in sorted(state.ended, key=lambda s: runs.index(s.run)):
        row = Row(s.run, trainable[s.run.id], 0, s.steps, s.converged_step, s.seconds, memory, s.status or "finished")
        own = sum(t.numel() for name, t in s.last.items() if name not in bench.backbone.weights)
        row.total = bench.backbone.parameters + own
        rows.append(row)
    candidates = [
        (row, tensors)
        for row, s in zip(rows, sorted(state.ended, key=lambda s: runs.index(s.run)), strict=True)
        for tensors in ((s.best, s.last) if s.status != "diverged" else (s.best,))
        if tensors
    ]
    if candidates:
        logits = bench.logits(
            [row.run for row, _ in candidates], [tensors for _, tensors in candidates], bench.rows.validation
        )
        for (row, tensors), own_logits in zip(candidates, logits, strict=True):
            scores = score_logits(own_logits, bench.rows.validation.labels.numpy())
            if row.validation is None or scores.accuracy > row.validation.accuracy:
                row.validation, row.tensors = scores, tensors
    return rows


def make_artifact(row: Row, bench: Bench, corpus: Corpus, plan: Plan) -> Artifact:
    """What a trained row leaves behind, with how it was trained and what it scored on validation."""
    run, backbone = row.run, bench.backbone
    return Artifact(
        id=run.id,
        role=run.role,
        labels=corpus.dataset.labels,
        head=plan.training.head,
        max_length=min(plan.reading.max_length, backbone.shape.longest),
        rank=run.rank,
        alpha=run.alpha,
        dropout=run.dropout,
        targets=run.targets,
        scaling=run.scaling,
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        architecture=backbone.architecture.model_type,
        data_fingerprint=corpus.dataset.fingerprint,
        tensors=row.tensors,
        training={"lr": run.lr, "seed": run.seed, "steps_taken": row.steps} | asdict(plan.training),
        data={
            "source": plan.source,
            "train_rows": len(corpus.train),
            "validation_rows": len(corpus.validation),
            "split_seed": plan.reading.split_seed,
            "validation_fraction": plan.reading.validation_fraction,
        },
        metrics={"validation": metrics_of(row.validation, len(corpus.validation))} if row.validation else {},
    )


def metrics_of(scores: Scores, rows: int) -> dict[str, Any]:
    """Scores on a split as an artifact records them."""
    return {"rows": rows} | scores.to_json()
