"""Prediction without torch: what it imports, that it equals torch, and that threads and forks may use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from backends import NATIVE
from models import make_pair

from loralet import TextClassifier
from loralet.config import ComputeOptions, ModelOptions
from loralet.inference.adapters import read_adapter
from loralet.inference.engine import NativeEngine
from loralet.inference.ensemble import Ensemble, load_ensemble
from loralet.inference.torch_engine import TorchEngine

TEXTS = ["a b c x", "h i", "p q r s z y x", "", "b", "k j i h " * 30] * 5
LABELS = ["apple", "bird", "cat", "apple", "bird", "cat"] * 5
BLOCKED = """
import sys
from importlib.machinery import ModuleSpec
class Blocked:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.partition(".")[0] in {blocked!r} else None
    def create_module(self, spec):
        raise ImportError(spec.name + " is blocked")
    def exec_module(self, module):
        pass
sys.meta_path.insert(0, Blocked())
from loralet.cli import main
main()
"""
native = pytest.mark.skipif(not NATIVE, reason="no C compiler")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained adapter on a model in an absolute folder."""
    folder = tmp_path_factory.mktemp("inference")
    make_pair(folder / "model")
    classifier = TextClassifier(str(folder / "model"), steps=20, rank=4, lr=1e-2, backend="torch")
    texts = [text or "x" for text in TEXTS]
    classifier.fit(texts, LABELS).save(folder / "adapter")
    return folder / "adapter"


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


@native
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_command_needs_no_torch_and_no_package_for_training(command: str, adapter: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(TEXTS, LABELS, strict=True) if t))
    given = ["a b c"] if command == "predict" else [str(rows)]
    code = BLOCKED.format(blocked=("torch", "tomli_w", "jinja2", "matplotlib", "filelock", "huggingface_hub", "pandas"))
    done = run(code, command, str(adapter), *given)
    assert done.returncode == 0, done.stderr
    assert ("probability" if command == "predict" else "accuracy") in done.stdout
    refused = run(code, command, str(adapter), *given, "--backend", "torch")
    assert refused.returncode != 0
    assert "torch is blocked" in refused.stderr


@native
def test_predicting_one_text_imports_neither_torch_nor_arrow_nor_pandas(adapter: Path) -> None:
    code = BLOCKED.format(blocked=("torch", "pyarrow", "pandas", "scipy", "sklearn", "matplotlib", "huggingface_hub"))
    done = run(code, "predict", str(adapter), "a b c")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def loaded(adapter: Path) -> Callable[[str], Ensemble]:
    return lambda backend: load_ensemble([adapter], ModelOptions(), ComputeOptions(backend, "fp32"))


@native
def test_both_engines_give_the_same_logits(loaded: Callable[[str], Ensemble]) -> None:
    ours, theirs = loaded("native"), loaded("torch")
    assert isinstance(ours.groups[0].engine, NativeEngine)
    assert isinstance(theirs.groups[0].engine, TorchEngine)
    assert np.abs(ours.logits(TEXTS) - theirs.logits(TEXTS)).max() <= 1e-5
    assert np.ptp(ours.logits(TEXTS), axis=0).max() > 0.05


@native
def test_a_text_has_the_same_logits_alone_and_in_a_column(loaded: Callable[[str], Ensemble]) -> None:
    import pyarrow as pa

    ensemble = loaded("native")
    together = ensemble.logits(pa.chunked_array([pa.array(TEXTS * 10, pa.string())]))
    for i, text in enumerate(TEXTS):
        assert np.array_equal(ensemble.logits([text])[0], together[i])


@native
def test_threads_may_predict_at_once(loaded: Callable[[str], Ensemble]) -> None:
    ensemble = loaded("native")
    wanted = ensemble.logits(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: ensemble.logits(TEXTS), range(40)):
            assert np.array_equal(found, wanted)


@native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_predicts(adapter: Path) -> None:
    """GNU OpenMP would wait for its threads forever."""
    code = """
import os, sys
from pathlib import Path
from loralet.config import ComputeOptions, ModelOptions
from loralet.inference.ensemble import load_ensemble
from loralet.runtime import thread_count, using_threads
with using_threads(2):
    ensemble = load_ensemble([Path(sys.argv[1])], ModelOptions(), ComputeOptions("native", "fp32"))
    texts = ["a b c x y z " * 20] * 64
    wanted = ensemble.logits(texts)
    assert thread_count() == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if thread_count() == 1 and (ensemble.logits(texts) == wanted).all() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", code, str(adapter)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "0\n", done.stderr


def test_the_adapter_is_read_without_tensors(adapter: Path) -> None:
    opened = read_adapter(adapter)
    assert opened.artifact.tensors == {}
    assert {array.dtype for array in opened.arrays.values()} == {np.dtype(np.float32)}
