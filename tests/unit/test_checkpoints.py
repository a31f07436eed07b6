"""Records of a checkpoint folder: written atomically, verified when they are read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from loralet import atomic
from loralet.atomic import new_file, remove_temporaries
from loralet.errors import RunError
from loralet.events import Stage
from loralet.interrupts import Interrupts
from loralet.runs import checkpoints
from loralet.runs.checkpoints import Checkpoints, Saved
from loralet.runs.lock import locked
from loralet.runs.metrics import MetricsFile
from loralet.studies import saving
from loralet.studies.saving import PackRecord, StudySaver

VALUES = {"step": 7, "rank": [0.1, float("-inf"), 0], "text": "Zürich"}
TENSORS = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "events": np.frombuffer(b"{}\n", np.uint8)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    assert store.read("pack-1") is None
    assert not store.exists("pack-1")
    store.write("pack-1", Saved(VALUES, TENSORS))
    found = store.read("pack-1")
    assert found
    assert found.values == VALUES
    assert {name: (t.dtype, t.tobytes()) for name, t in found.tensors.items()} == {
        name: (t.dtype, t.tobytes()) for name, t in TENSORS.items()
    }
    store.write("pack-1", Saved({"step": 8}))
    assert store.read("pack-1") == Saved({"step": 8})
    assert names(tmp_path) == ["pack-1.json"]
    store.write("pack-10", Saved(VALUES, TENSORS))
    store.remove("pack-1")
    assert names(tmp_path) == ["pack-10.1.safetensors", "pack-10.json"]


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_the_older_record_stays_until_the_new_one_is_complete(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that stops at any fsync or rename leaves the older record, and the next write is complete."""
    store, calls = Checkpoints(tmp_path), 0
    store.write("pack-1", Saved({"step": 1}, TENSORS))
    sync, replace = atomic.sync, Path.replace

    def counted(inner: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise KeyboardInterrupt
            return inner(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "sync", counted(sync))
        patch.setattr(Path, "replace", counted(replace))
        with pytest.raises(KeyboardInterrupt):
            store.write("pack-1", Saved({"step": 2}, {"a": np.zeros(3)}))
    found = store.read("pack-1")
    assert found
    assert found.values["step"] == (2 if fails_at == 6 else 1)  # only the last fsync comes after the rename
    assert set(found.tensors) == ({"a"} if fails_at == 6 else set(TENSORS))
    store.write("pack-1", Saved({"step": 3}, TENSORS))
    assert store.read("pack-1") is not None
    assert len(names(tmp_path)) == 2


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.write("pack-1", Saved(VALUES, {"a": np.arange(2, dtype=np.float32)}))
    for path in (tmp_path / "pack-1.json", tmp_path / "pack-1.1.safetensors"):
        content = path.read_bytes()
        for i in range(len(content)):
            for damaged in (content[:i], content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :]):
                path.write_bytes(damaged)
                if path.suffix == ".json" and _same(damaged, content):
                    continue  # a flipped bit turned a letter of a key's escape, or a space, into an equal one
                with pytest.raises(RunError, match=path.name):
                    store.read("pack-1")
        path.write_bytes(content)
    assert store.read("pack-1")
    (tmp_path / "pack-1.1.safetensors").unlink()
    with pytest.raises(RunError, match="missing"):
        store.read("pack-1")


def _same(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_a_record_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("loralet.runs.checkpoints.FORMAT", 2)
        store.write("pack-1", Saved(VALUES))
    with pytest.raises(RunError, match="format 2, this loralet reads format 1"):
        store.read("pack-1")


@pytest.mark.parametrize(
    "change",
    [
        {"values": [1]},
        {"values": None},
        {"tensors": 7},
        {"tensors": {}},
        {"tensors": {"file": 7}},
        {"tensors": {"file": "../a"}},
    ],
)
def test_a_record_of_wrong_types_is_refused_though_its_checksum_is_right(
    tmp_path: Path, change: dict[str, object]
) -> None:
    store = Checkpoints(tmp_path)
    store.write("a", Saved({"x": 1}, {"t": np.zeros(2)}))
    body = json.loads((tmp_path / "a.json").read_text()) | change
    del body["sha256"]
    (tmp_path / "a.json").write_text(json.dumps(body | {"sha256": checkpoints._digest(body)}))
    with pytest.raises(RunError, match=r"damaged|missing"):
        store.read("a")


@pytest.mark.parametrize("rows", [None, 7, [7], [{}], [{"run": {"id": 7}}]])
def test_a_pack_record_of_wrong_values_is_named(tmp_path: Path, rows: object) -> None:
    store, folder = Checkpoints(tmp_path / "checkpoint"), Mock(folder=tmp_path)
    store.write("pack-1", Saved({"key": "k", "rows": rows, "files": 7}))
    saver = StudySaver(store, folder, "k", 0.0, Interrupts(), Mock())
    for read in (PackRecord.rows, PackRecord.begin):
        with pytest.raises(
            RunError, match=r"pack-1\.json: cannot be read .*; delete it, and its pack is trained again"
        ):
            read(saver.pack(1, []))
    with pytest.raises(RunError, match="belongs to a run with other options"):
        StudySaver(store, folder, "other", 0.0, Interrupts(), Mock()).pack(1, [])


def test_a_state_is_saved_with_the_events_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal after the last step saves the state between two steps; what follows is told again after a resume."""
    monkeypatch.setattr(saving, "save_state", lambda state: Saved({"step": state.step}))
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.append(Stage("of an earlier pack"))
    metrics.begin()
    store = Checkpoints(tmp_path / "checkpoint")
    record = StudySaver(store, Mock(folder=tmp_path, metrics=metrics), "k", 1e9, Interrupts(), Mock()).pack(1, [])
    metrics.append(Stage("before"))
    record.between(Mock(step=3, active=[]))
    metrics.append(Stage("after"))
    record.save()
    saved = store.read("pack-1")
    assert saved is not None
    assert [json.loads(line)["text"] for line in saved.tensors["events"].tobytes().splitlines()] == ["before"]
    metrics.close()


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.write("pack-1", Saved(VALUES, TENSORS))
    before = names(tmp_path)
    with new_file(tmp_path / "pack-1.json") as temporary:
        left = tmp_path / f"{temporary.name[:-16]}{'0123456789abcdef'}"
        left.write_bytes(b"half")
    (tmp_path / ".adapter.abcdefgh").mkdir()
    (tmp_path / ".hidden").write_text("a user's file")
    remove_temporaries(tmp_path)
    assert [name for name in names(tmp_path) if name not in before] == [".hidden"]
    remove_temporaries(tmp_path / "nowhere")


def test_a_lock_has_one_owner_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, tmp_path):
        with pytest.raises(RunError, match="another process is training into this folder"), locked(path, tmp_path):
            pass
        script = "import sys, fcntl; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in other.stderr
    with locked(path, tmp_path):
        path.unlink()  # as when a run is finished
        with locked(path, tmp_path):
            pass


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    class LibraryError(Exception):
        pass

    with pytest.raises(OSError, match="No space left") as caught, new_file(tmp_path / "a.json"):
        raise LibraryError("I/O error: No space left on device (os error 28)")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(OSError, match="No space left") as caught, new_file(tmp_path / "a.json"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError) as missing, new_file(tmp_path / "a.json"):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")
    with pytest.raises(LibraryError, match="something else"), new_file(tmp_path / "a.json"):
        raise LibraryError("something else")
    assert names(tmp_path) == []
