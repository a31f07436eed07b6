"""Check the shapes in annotations. jaxtyping's import hook must run before the package is imported."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

from jaxtyping import install_import_hook

# AdapterSpec validates itself, with messages for the user.
ADAPTERS = [path.stem for path in (Path(__file__).parents[1] / "src/loralet/adapters").glob("[a-z]*.py")]
CHECKED = [f"loralet.adapters.{name}" for name in ADAPTERS if name != "spec"]
CHECKED += ["loralet.models", "loralet.backends", "loralet.training.optimizer"]
CHECKED += ["loralet.data.batches", "loralet.inference.evaluation"]
install_import_hook(CHECKED, "beartype.beartype")

import hypothesis
import pytest
import torch

from loralet.cache import cache_folder

# No deadline, because tests run slowly on a busy machine.
hypothesis.settings.register_profile("loralet", deadline=None)
hypothesis.settings.load_profile("loralet")


@pytest.fixture(autouse=True)
def _caches_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _kernels_of_processes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Link the compiled kernels into the tests' cache, so that the processes of tests do not compile them again."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    folder = cache / "native"
    for one in (cache, folder):
        one.mkdir(0o755)  # any umask: other users must not be able to write it
    for library in (cache_folder() / "native").glob("kernels-*.so"):
        (folder / library.name).symlink_to(library.resolve())


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Use one thread: the tensors are small, and test workers share the cores."""
    torch.set_num_threads(1)
