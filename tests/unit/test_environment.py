"""environment.json: its content, and the message if it is invalid."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import loralet
from loralet.backends.info import BackendInfo
from loralet.errors import RunError
from loralet.runs.environment import NAME, SessionBackend, environment, read_environment, write_environment

BACKENDS = (
    SessionBackend("tiny-en", BackendInfo("native", "cpu", "AVX2", "fp32", 2)),
    SessionBackend("large", BackendInfo("torch", "cpu", "", "bf16", 2, "no C compiler found")),
)


def test_it_round_trips(tmp_path: Path) -> None:
    found = environment(BACKENDS)
    assert (found.loralet, found.torch, found.threads) == (
        loralet.__version__,
        torch.__version__,
        torch.get_num_threads(),
    )
    assert found.backends == BACKENDS
    write_environment(tmp_path, found)
    assert read_environment(tmp_path) == found != environment()
    raw = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    assert raw["backends"][1] == {
        "model": "large",
        "backend": {
            "name": "torch",
            "device": "cpu",
            "instructions": "",
            "dtype": "bf16",
            "threads": 2,
            "reason": "no C compiler found",
        },
    }


def test_an_older_file_without_backends_and_commit_is_read(tmp_path: Path) -> None:
    write_environment(tmp_path, environment(BACKENDS))
    raw = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    del raw["backends"], raw["commit"]
    (tmp_path / NAME).write_text(json.dumps(raw))
    found = read_environment(tmp_path)
    assert (found.backends, found.commit) == ((), None)
    assert found == replace(environment(), started=found.started, commit=None)


def test_the_cpu_of_an_older_file_is_read(tmp_path: Path) -> None:
    write_environment(tmp_path, environment(BACKENDS))
    raw = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    assert "processor" not in raw
    older = {"processor" if name == "cpu" else name: value for name, value in raw.items()} | {"processor": "Some CPU"}
    (tmp_path / NAME).write_text(json.dumps(older))
    assert read_environment(tmp_path).cpu == "Some CPU"


def test_an_invalid_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"environment\.json: cannot be read \(No such file"):
        read_environment(tmp_path)
    for content, words in (
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "a JSON object is expected"),
    ):
        (tmp_path / NAME).write_text(content)
        with pytest.raises(RunError, match=rf"environment\.json: {words}"):
            read_environment(tmp_path)
    write_environment(tmp_path, environment(BACKENDS))
    raw = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    raw["cores"], raw["backends"][0]["backend"]["name"] = "two", "fast"
    (tmp_path / NAME).write_text(json.dumps(raw))
    with pytest.raises(RunError) as caught:
        read_environment(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path / NAME}: cannot be read:",
        "  - cores is 'two': a whole number is expected",
        "  - backends[0].backend.name is 'fast': one of torch, native, onnxruntime is expected",
    ]
