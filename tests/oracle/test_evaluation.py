"""Runs evaluated together have the logits of each run alone, whatever they share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from backends import each_backend
from models import Pair, make_pair
from programs import CPU, TASK, run_of
from test_pack import rows
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import PackShape
from loralet.adapters.pack import Pack
from loralet.adapters.spec import HEAD_ALONE
from loralet.backends.base import Backend
from loralet.config import ComputeOptions, TrainingOptions
from loralet.runs.results import TextLengths
from loralet.runs.run import Run
from loralet.training.corpus import CorpusRows
from loralet.training.packs import resolved
from loralet.training.session import Loaded, Session

FULL = Run("full", "m", "full", HEAD_ALONE, 1e-3, 0)
ADAPTED = [
    run_of(3e-3, 0, rank=4, alpha=16.0, targets=("query", "value")),
    run_of(1e-2, 1, rank=0),
    run_of(1e-3, 2, method="dora", rank=2, alpha=8.0),
    run_of(1e-3, 3, rank=16, alpha=64.0),
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


LENGTHS = TextLengths("model", max_length=40, longest=10, truncated=0)


def loaded_by(backend: Backend, pair: Pair) -> Loaded:
    encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
    return Loaded(backend, encoder, backend.info(torch.float32))


def session_of(pair: Pair, memory: int = 10**9, backend: Backend = CPU) -> Session:
    """A session whose LoRA packs this backend computes, and whose DoRA packs it computes too if it supports them."""
    corpus = CorpusRows(rows(40, 0), rows(60, 1), rows(30, 1))
    dora = backend if backend.supports(pair.ours.table, torch.float32, "dora") is None else CPU
    loaded = {"lora": loaded_by(backend, pair), "dora": loaded_by(dora, pair)}
    options = TrainingOptions(steps=12, batch_size=4, eval_every=1, schedule="constant")
    return Session(pair.ours, loaded, corpus, LENGTHS, TASK, options, "pooler", ComputeOptions(), memory)


def states(session: Session, runs: list[Run]) -> list[Mapping[str, Tensor]]:
    """Random trained tensors of each run."""
    found: list[Mapping[str, Tensor]] = []
    for i, run in enumerate(runs):
        pack = session.pack([run])
        start = pack.start(session.backbone.weights)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(i))
        found.append(pack.extract(start + 0.05 * noise, 0))
    return found


@each_backend
@pytest.mark.parametrize("memory", [10**9, 1], ids=["together", "apart"])
def test_logits_of_several_runs_are_those_of_each_alone(pair: Pair, memory: int, backend: Backend) -> None:
    session = session_of(pair, memory, backend)
    runs = [FULL, *(resolved(run, pair.ours.table) for run in ADAPTED), FULL]
    tensors, validation = states(session, runs), session.rows.validation
    every = session.logits(runs, tensors, validation)
    assert every.shape == (len(runs), 60, TASK.outputs)
    for run, own, logits in zip(runs, tensors, every, strict=True):
        alone = session.logits([run], [own], validation)[0]
        assert np.abs(logits - alone).max() < 1e-5, run.id
    assert np.abs(every[0] - every[-1]).max() > 1e-2, "two states of full fine-tuning differ"


def test_runs_that_exceed_the_memory_are_evaluated_apart(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = Session.pack
    monkeypatch.setattr(Session, "pack", lambda self, runs: sizes.append(len(runs)) or plain(self, runs))
    runs = [resolved(run, pair.ours.table) for run in ADAPTED]
    tensors = states(session_of(pair), runs)
    for memory, expected in ((10**9, [3, 1]), (1, [1, 1, 1, 1])):
        sizes.clear()
        session_of(pair, memory).logits(runs, tensors, rows(10, 2))
        assert sizes == expected


def test_a_pack_of_full_fine_tuning_holds_one_run(pair: Pair) -> None:
    adapter = Adapter(0, 0.0, 0.0, (), 0)
    with pytest.raises(ValueError, match="holds one run, not 2"):
        Pack(PackShape(pair.ours.table, 4, full=True), [adapter, adapter])
