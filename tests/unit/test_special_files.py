"""A named pipe in place of a file is refused by every command that reads the folder, and nothing waits for it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from command_line import command
from run_folders import write_data, write_study

RUN = "lora-r2-a8-lr0.0015-s0"
COMMANDS = {
    "results.json": (("show", "run"), ("inspect", "run"), ("predict", "run", "x"), ("resume", "run")),
    "environment.json": (("show", "run"), ("report", "run", "--format", "md")),
    "config.toml": (("evaluate", "run"), ("resume", "run"), ("train", "data", "--out", "run")),
    "metrics.jsonl": (("report", "run", "--format", "md"),),
    "predictions.safetensors": (("compare", "run", f"run/adapters/{RUN}"), ("report", "run", "--format", "md")),
    f"adapters/{RUN}/loralet.json": (("predict", "run", "--run", RUN, "x"), ("inspect", f"run/adapters/{RUN}")),
    f"adapters/{RUN}/adapter_model.safetensors": (("predict", "run", "--run", RUN, "x"),),
}
SECONDS = 20
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")


class Waited(BaseException):
    """A command did not end."""


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Waited

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipes")
    write_data(folder / "data")
    write_study(folder / "run", folder / "data")
    return folder


@pytest.mark.parametrize(("name", "arguments"), [(name, one) for name, found in COMMANDS.items() for one in found])
def test_a_pipe_is_refused(place: Path, tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    done = command(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert f"loralet: run/{name}: is a named pipe" in done.stderr


def test_a_pipe_makes_a_listed_run_unreadable(place: Path, tmp_path: Path) -> None:
    for name in ("results.json", "config.toml", "environment.json"):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(place / "run", folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
    shutil.copytree(
        tmp_path / "config", tmp_path / "alone", ignore=shutil.ignore_patterns("results.json", "config.toml")
    )
    os.mkfifo(tmp_path / "alone" / "config.toml")
    done = command(tmp_path, "runs", ".", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"unreadable"') == 4


def test_links_to_files_are_read(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    (tmp_path / "run" / "results.json").rename(tmp_path / "moved.json")
    (tmp_path / "run" / "results.json").symlink_to(tmp_path / "moved.json")
    assert command(tmp_path, "show", "run").returncode == 0
    (tmp_path / "moved.json").unlink()
    assert command(tmp_path, "show", "run").returncode == 2
