"""Every file of an unfinished run folder, damaged in every way: the run is still finished, in the same final state."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import command
from states import Whole, completed, count, differences, ended, final_state, started, wait_for

DAMAGES = count("LORALET_DAMAGES", 2)
"""Number of pairs of a file and a kind of damage; 0: all."""


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def missing(path: Path) -> None:
    path.unlink()


KINDS: tuple[Callable[[Path], None], ...] = (truncated, flipped, empty, missing)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory, study: Whole) -> Path:
    """A study that was interrupted in its second pack."""
    place = tmp_path_factory.mktemp("unfinished")
    process = started(place, (*study.arguments, "--out", "run", "--checkpoint-every", "0"))
    wait_for(place / "run" / "checkpoint" / "pack-2.json")
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.status == 143, done.output
    return place / "run"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_damaged_folders_are_finished_in_the_same_state(
    tmp_path: Path, unfinished: Path, study: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    found = files(unfinished)
    assert {"config.toml", "metrics.jsonl", "results.json", "checkpoint/run.json", "checkpoint/pack-2.json"} < {*found}
    cases = [(name, kind) for name in found for kind in KINDS]
    chosen = random.Random(0).sample(cases, DAMAGES) if DAMAGES else cases
    for i, (name, kind) in enumerate(chosen):
        folder = tmp_path / str(i)
        shutil.copytree(unfinished, folder)
        kind(folder / name)
        done = command(tmp_path, "resume", str(i))
        assert done.returncode == 0, (name, kind, done.stderr)
        assert "Traceback" not in done.stderr
        assert not differences(final_state(folder), study.state), (name, kind, done.stderr)
        lost = name.startswith("checkpoint/pack-") or name.endswith("adapter_model.safetensors")
        if lost and kind is not missing:
            assert Path(name).name.split(".")[0] in done.stderr  # what is damaged is said
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"\n{len(chosen)} of {len(cases)} damages of {len(found)} files: all final states are identical")


def test_an_unfinished_study_can_be_shown_and_used_and_says_that_it_is_unfinished(
    tmp_path: Path, unfinished: Path
) -> None:
    shutil.copytree(unfinished, tmp_path / "run")
    before = files(tmp_path / "run")
    for arguments in (("show", "run"), ("predict", "run", "the team won the match"), ("inspect", "run")):
        done = completed(tmp_path, *arguments)
        assert done.status == 0, done.output
        assert "`loralet resume run` goes on" in done.output.replace("\n", " ")
    assert files(tmp_path / "run") == before
    assert command(tmp_path, "report", "run", "--format", "md").returncode == 0
    assert "run is unfinished: " in (tmp_path / "run" / "report.md").read_text()
    done = command(tmp_path, "evaluate", "run")
    assert done.returncode == 2
    assert "reads the test split once" in done.stderr
    done = command(tmp_path, "predict", "run", "--run", "probe-s1", "text")
    assert done.returncode == 2
    assert "probe-s1 is not trained yet" in done.stderr


def test_a_changed_option_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, unfinished: Path, study: Whole
) -> None:
    shutil.copytree(unfinished, tmp_path / "run")
    before = final_state(tmp_path / "run")
    changes = {"steps is 41, it was 40": ("--steps", "41"), "lrs is 0.01, it was 0.001": ("--lrs", "0.01")}
    for words, more in changes.items():
        done = completed(tmp_path, *study.arguments, *more, "--out", "run")
        assert done.status == 2
        assert words in done.output
        assert "`loralet resume run` continues it" in done.output
    done = completed(tmp_path, "train", "--out", "run")
    assert done.status == 2
    assert "holds an unfinished study" in done.output
    assert not differences(final_state(tmp_path / "run"), before)
