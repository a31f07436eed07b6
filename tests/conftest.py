"""Check types and the shapes in annotations. The import hooks must run before the package is imported."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

from beartype.claw import beartype_packages
from jaxtyping import install_import_hook

SOURCE = Path(__file__).parents[1] / "src"
PLACES = (
    *("adapters/*.py", "models/**/*.py", "backends/**/*.py"),
    *("training/optimizer.py", "data/batches.py", "inference/evaluation.py"),
)
FILES = [path for place in PLACES for path in (SOURCE / "loralet").glob(place)]


def modules(paths: list[Path]) -> list[str]:
    """The names of the modules in these files."""
    return [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths if path.stem != "__init__"]


def needs_jaxtyping(path: Path) -> bool:
    """Whether a module has shapes, or a NamedTuple, whose annotations beartype alone cannot resolve."""
    text = path.read_text(encoding="utf-8")
    return "from jaxtyping import" in text or "(NamedTuple)" in text


# jaxtyping takes several times as long as beartype alone. AdapterSpec validates itself, with messages for the user.
SHAPED = [path for path in FILES if needs_jaxtyping(path)]
install_import_hook(modules(SHAPED), "beartype.beartype")
beartype_packages(modules([path for path in FILES if path not in SHAPED and path.name != "spec.py"]))

import hypothesis
import pytest
import torch

from loralet.cache import cache_folder

# No deadline, because tests run slowly on a busy machine.
hypothesis.settings.register_profile("loralet", deadline=None)
hypothesis.settings.load_profile("loralet")


SLOWEST = (
    *("docs/test_snippets", "oracle/test_pack", "oracle/test_families", "oracle/test_export", "oracle/test_resume"),
    *("unit/test_published", "unit/test_terminal", "unit/test_network", "unit/test_hub", "unit/test_base_vs_lora"),
    *("unit/test_cli", "unit/test_distill", "unit/test_runtime", "unit/test_plan", "faults/"),
)
"""The modules that take longest. They come first, so that no test worker ends long before the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def is_fast(item: pytest.Item) -> bool:
        return not item.nodeid.removeprefix("tests/").startswith(SLOWEST)

    items.sort(key=is_fast)


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
