"""Which folders a training may write into, and what must be the same when it is continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import command
from run_folders import NATIVE, TORCH, write_data, write_study

from loralet.commands.study import _interrupted_text, _say_differences
from loralet.config import ComputeOptions, StudyConfig, TrainConfig, TrainingOptions
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.errors import ConfigError, DataError, RunError
from loralet.events import Event, Stage
from loralet.runs.checkpoints import FOLDER, Checkpoints, Saved
from loralet.runs.environment import SessionBackend
from loralet.runs.results import read_results, write_results
from loralet.runs.resume import (
    Origin,
    claim,
    origin_of,
    read_origin,
    require_same_inputs,
    require_same_options,
    write_origin,
)

CONFIG = TrainConfig(data="data", out="run", training=TrainingOptions(steps=7))


def origin(folder: Path, options: TrainConfig | StudyConfig = CONFIG, model: str = "f" * 64) -> Origin:
    dataset = load_dataset(str(folder), Columns())
    kind = "study" if isinstance(options, StudyConfig) else "train"
    backends = (SessionBackend("m", NATIVE),)
    return origin_of(kind, options, dataset, None, {"m": model}, (("a", "b"), ("c",)), 2**30, backends, False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    return tmp_path / "data"


def test_the_origin_of_a_run_is_read_as_it_was_written(tmp_path: Path, data: Path) -> None:
    store, began = Checkpoints(tmp_path / FOLDER), origin(data)
    assert read_origin(store) is None
    write_origin(store, began)
    found = read_origin(store)
    assert found == began
    assert found is not None
    assert found.options() == CONFIG
    assert found.key == began.key
    others = [
        replace(began, config=began.config.replace("steps = 7", "steps = 8")),
        replace(began, packs=(("a",), ("b", "c"))),
        replace(began, fingerprint="0"),
        origin(data, model="0" * 64),
    ]
    assert len({began.key, *(other.key for other in others)}) == 5
    path = tmp_path / FOLDER / "run.json"
    path.write_text(path.read_text().replace("steps = 7", "steps = 8"))
    with pytest.raises(RunError, match="damaged"):
        read_origin(store)


def test_options_other_than_those_of_the_machine_must_be_the_same(data: Path) -> None:
    began = origin(data)
    free = replace(CONFIG, out="elsewhere", checkpoint_every=1.0, compute=ComputeOptions("torch", "fp32", 3))
    require_same_options(Path("run"), began, "train", free)
    with pytest.raises(ConfigError, match=r"steps is 8, it was 7: options cannot change on resume") as caught:
        require_same_options(Path("run"), began, "train", replace(CONFIG, training=TrainingOptions(steps=8), lr=1.0))
    assert "lr is 1.0, it was not set" in str(caught.value)
    assert "`loralet resume run` continues it" in str(caught.value)
    with pytest.raises(ConfigError, match="holds an unfinished train: `loralet resume run` continues it"):
        require_same_options(Path("run"), began, "study", StudyConfig())


def test_a_changed_file_or_model_is_named(data: Path) -> None:
    began, folder = origin(data), Path("run")
    require_same_inputs(folder, began, origin(data))
    with pytest.raises(RunError, match="m: this model has changed since the run in run began"):
        require_same_inputs(folder, began, origin(data, model="0" * 64))
    for name in ("test", "train"):
        path = data / f"{name}.csv"
        path.write_text(path.read_text().replace("text 7", "text seven"))
        named = "the test split" if name == "test" else "train.csv"
        with pytest.raises(DataError, match=f"{named}: changed since the run in run began; restore it"):
            require_same_inputs(folder, began, origin(data))


def test_another_backend_is_said_in_one_line(data: Path) -> None:
    began, heard = origin(data), list[Event]()
    _say_differences(began, began, heard.append)
    assert heard == []
    now = replace(began, backends=(SessionBackend("m", TORCH),), cpu="another CPU")
    _say_differences(began, now, heard.append)
    (event,) = heard
    assert isinstance(event, Stage)
    assert event.text.endswith("equal to an uninterrupted run up to rounding")
    assert "torch, fp32, 2 threads" in event.text
    assert "another CPU" in event.text


def test_a_claimed_folder_is_removed_if_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("", "deep/run"):
        with claim(out, "train") as claimed:
            assert claimed.folder.is_dir()
            assert claimed.origin is None
            assert not claimed.begun
            with pytest.raises(RunError, match="another process is training"), claim(str(claimed.folder), "train"):
                pass
        assert list(tmp_path.iterdir()) == []


def test_a_claim_keeps_what_was_written_and_continues_it(tmp_path: Path, data: Path) -> None:
    out = str(tmp_path / "run")
    with claim(out, "train") as claimed:
        write_origin(claimed.checkpoints, origin(data))
        (claimed.folder / ".results.json.abcdefgh").write_text("half")
    with claim(out, "train") as claimed:
        assert claimed.origin == origin(data)
        assert [path.name for path in claimed.folder.iterdir()] == [FOLDER]
    (tmp_path / "run" / FOLDER / "run.json").write_text("{")
    with claim(out, "train") as claimed:
        assert claimed.origin is None
        assert "run.json: damaged" in claimed.notes[0]


def test_an_interruption_names_the_command_as_soon_as_there_is_something_to_resume(tmp_path: Path, data: Path) -> None:
    with claim(str(tmp_path / "a run"), "train") as claimed:
        assert _interrupted_text(claimed) == "interrupted before the first step; nothing is kept"
        write_origin(claimed.checkpoints, origin(data))
        command = f"loralet resume '{tmp_path / 'a run'}'"
        assert _interrupted_text(claimed) == f"interrupted before the first step; to begin again: {command}"
        claimed.checkpoints.write("pack-1", Saved({}))
        assert _interrupted_text(claimed) == f"interrupted; to go on from the last checkpoint: {command}"


def test_other_folders_are_refused_and_unchanged(tmp_path: Path, data: Path) -> None:
    finished = write_study(tmp_path / "finished", data)
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.toml").write_text("")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "photo.jpg").write_text("x")
    file = tmp_path / "file"
    file.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    for folder, words in (
        (finished, "it holds a finished run"),
        (older, "without checkpoints, which cannot be continued"),
        (foreign, "is not empty; give another folder"),
        (file, "is not empty"),
        (file / "run", "file is a file"),
    ):
        with pytest.raises(RunError, match=words), claim(str(folder), "train"):
            pass
    assert sorted(tmp_path.rglob("*")) == before


def test_resume_of_other_folders_is_one_message(tmp_path: Path, data: Path) -> None:
    finished = write_study(tmp_path / "finished", data)
    (finished / FOLDER).mkdir()
    done = command(tmp_path, "resume", "finished")
    assert (done.returncode, done.stdout) == (0, "finished is finished; there is nothing to resume\n")
    assert not (finished / FOLDER).exists()
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "config.toml").write_text('data = "data"')
    for folder, words in (("older", "has no checkpoints"), ("data", "not a run folder"), ("no", "not a run folder")):
        done = command(tmp_path, "resume", folder)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_unfinished_results_are_read_and_shown(tmp_path: Path, data: Path) -> None:
    folder = write_study(tmp_path / "run", data)
    results = read_results(folder)
    assert (results.finished, results.pending) == (True, ())
    raw = json.loads((folder / "results.json").read_text())
    assert (raw["finished"], raw["pending"]) == (True, [])
    for key in ("finished", "pending"):  # a file of an older version
        del raw[key]
    (folder / "results.json").write_text(json.dumps(raw))
    assert read_results(folder) == results
    rows = tuple(replace(run, test=None) for run in results.runs if run.id != "lora-r4-a16-lr0.0015-s0")
    pending = ("lora-r4-a16-lr0.0015-s0",)
    write_results(folder, replace(results, runs=rows, finished=False, pending=pending, test_reads=0))
    (folder / "predictions.safetensors").unlink()
    line = "run is unfinished: 4 of 5 runs are trained and the test split is not read; `loralet resume run` goes on"
    assert line in command(tmp_path, "show", "run").stdout
    assert line in command(tmp_path, "inspect", "run").stdout.replace("\n", " ")
    assert command(tmp_path, "report", "run", "--format", "md").returncode == 0
    report = (folder / "report.md").read_text()
    assert line in report.replace("\n", " ").replace("\\`", "`")
    assert "There is no test split" not in report
    done = command(tmp_path, "evaluate", "run")
    assert done.returncode == 2
    write_results(folder, replace(results, runs=rows[:2], finished=False, pending=pending, test_reads=0))
    done = command(tmp_path, "show", "run")
    assert done.returncode == 2
    assert "no trained run yet" in done.stderr
