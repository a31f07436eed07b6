"""Shapes in annotations are checked here, and only here: jaxtyping's import hook must run before the package is imported."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from jaxtyping import install_import_hook

install_import_hook(
    ["loralet.models", "loralet.adapters", "loralet.backends", "loralet.data.batches", "loralet.inference.evaluation"],
    "beartype.beartype",
)

import pytest
import torch


@pytest.fixture(autouse=True)
def _caches_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The tensors are tiny, and two test workers must not fight for the same cores."""
    torch.set_num_threads(1)
