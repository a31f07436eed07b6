"""CPU use of a process: passively waiting threads, and the requested number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from checkpoints import prajjwal
from command_line import command

from loralet import TextClassifier, runtime
from loralet.errors import ConfigError
from loralet.runtime import MOST_THREADS, POLICY, thread_count, thread_problems, using_threads

WATCH = """
import os, sys, warnings

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is imported with", os.environ.get("OMP_WAIT_POLICY"))

sys.meta_path.insert(0, Watch())
"""


def python(code: str, **environment: str) -> list[str]:
    """Output lines of a new process without a wait policy in its environment."""
    clean = {name: value for name, value in os.environ.items() if name != POLICY}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + dedent(code)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import loralet\nloralet.TextClassifier",
        "from loralet import load",
        "from loralet.classifier import TextClassifier",
        "from loralet.cli import main\nmain(['average', 'nowhere'])",
    ],
)
def test_threads_wait_passively_after_the_import_of_torch(code: str) -> None:
    assert python(f"warnings.simplefilter('error')\n{code}") == ["torch is imported with PASSIVE"]


def test_an_existing_wait_policy_is_kept() -> None:
    for code in (
        "import loralet\nloralet.TextClassifier",
        "from loralet.cli import main\nmain(['average', 'nowhere'])",
    ):
        lines = python(
            f"warnings.simplefilter('error')\n{code}\nprint(os.environ['{POLICY}'])", OMP_WAIT_POLICY="ACTIVE"
        )
        assert lines == ["torch is imported with ACTIVE", "ACTIVE"]


IMPORTED_FIRST = """
    import torch
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import loralet
        loralet.TextClassifier, loralet.load
        from loralet.cli import main
        main(["predict", "nowhere", "text"])
    found = [w for w in caught if "torch was imported before loralet" in str(w.message)]
    print(len(found), {w.category.__name__ for w in found} or "none")
"""


def test_there_is_one_warning_if_torch_was_imported_first() -> None:
    assert python(IMPORTED_FIRST) == ["torch is imported with None", "1 {'RuntimeWarning'}"]
    assert python(IMPORTED_FIRST, OMP_WAIT_POLICY="PASSIVE") == ["torch is imported with PASSIVE", "0 none"]


def test_importing_only_the_package_has_no_effect() -> None:
    code = f"import loralet\nprint(os.environ.get('{POLICY}'), 'torch' in sys.modules)"
    assert python(f"warnings.simplefilter('error')\n{code}") == ["None False"]


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    other = before + 1
    with using_threads(other):
        assert torch.get_num_threads() == other
        with using_threads(None):
            assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before
    with pytest.raises(KeyError), using_threads(other):
        raise KeyError
    assert torch.get_num_threads() == before
    with using_threads(None):
        torch.set_num_threads(other)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("count", "possible"), [(0, False), (-1, False), (1, True), (MOST_THREADS, True), (None, True)]
)
def test_bounds_of_the_number_of_threads(count: int | None, possible: bool) -> None:
    assert (list(thread_problems(count)) == []) == possible


TOO_MANY = [0, -2, MOST_THREADS + 1, 100_000]


@pytest.mark.parametrize("count", TOO_MANY)
def test_an_invalid_number_of_threads_is_reported_before_torch_sees_it(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_THREADS == 1024
    words = f"threads is {count}: it must be from 1 to 1024"
    assert list(thread_problems(count)) == [words]

    def never(number: int) -> None:
        assert number != count

    monkeypatch.setattr(torch, "set_num_threads", never)
    with pytest.raises(ConfigError, match=words), using_threads(count):
        pass
    for arguments in (["train"], ["study"], ["predict", "run", "text"], ["evaluate", "run"], ["export", "run"]):
        done = command(tmp_path, *arguments, "--threads", str(count))
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.splitlines() == ["loralet: 1 problem in the options:", f"  - {words}"]
    with pytest.raises(ConfigError, match=words):
        TextClassifier(threads=count).fit(["a", "b"] * 2, [0, 1] * 2)


def test_a_number_of_threads_set_after_fitting_is_checked(tmp_path: Path) -> None:
    texts, labels = ["oil price", "team wins"] * 4, ["a", "b"] * 4
    fitted = TextClassifier(str(prajjwal(tmp_path / "tiny")), rank=2, steps=1, batch_size=4, threads=1).fit(
        texts, labels
    )
    before = torch.get_num_threads()
    assert len(fitted.set_params(threads=2).predict(texts)) == 8
    for count in TOO_MANY:
        with pytest.raises(ConfigError, match=f"threads is {count}: it must be from 1 to 1024"):
            fitted.set_params(threads=count).predict(texts)
    assert torch.get_num_threads() == before


def test_a_forked_process_uses_one_thread_and_restores_torchs_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr(runtime, "_forked", True)
        with using_threads(None):
            assert thread_count() == torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


FORK = """
import os, sys
from loralet import TextClassifier

def fit():
    classifier = TextClassifier(steps=3, rank=2)
    texts, labels = ["good a b"] * 16 + ["bad x y"] * 16, ["p"] * 16 + ["n"] * 16
    return list(classifier.fit(texts, labels).predict(["good", "bad"]))

wanted = fit()
child = os.fork()
if child == 0:
    os._exit(0 if fit() == wanted else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_forked_after_training_trains() -> None:
    """joblib and multiprocessing fork; OpenMP would wait forever for threads that only the parent has."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["0"], done.stderr


@pytest.mark.parametrize("given", ["100000", "99999999999999999999,2"])
def test_a_number_of_threads_beyond_openmp_is_limited(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert thread_count() == MOST_THREADS
    runtime.prepare_runtime()
    assert os.environ["OMP_NUM_THREADS"] == str(MOST_THREADS)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    runtime.prepare_runtime()
    assert os.environ["OMP_NUM_THREADS"] == "3"
