"""Files and folders are written atomically and leave no temporary files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from loralet.atomic import new_file, new_folder, write_json


class InterruptedWriteError(Exception):
    """An interruption of a write."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with new_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename is atomic only within one file system
    assert path.read_text() == "new"
    assert names(path.parent) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_new_file_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with new_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("stop", [InterruptedWriteError, KeyboardInterrupt])
def test_new_file_keeps_the_old_content_when_the_block_raises(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(stop), new_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert len(names(tmp_path)) == 2
        raise stop
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_new_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    with new_folder(path) as temporary:
        (temporary / "a").write_text("1")
        assert not path.exists()
    assert names(path) == ["a"]
    assert names(path.parent) == ["run"]


def test_new_folder_replaces_an_older_one_completely(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_text("old")
    with new_folder(path) as temporary:
        (temporary / "new").write_text("new")
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("stop", [InterruptedWriteError, KeyboardInterrupt])
def test_new_folder_keeps_the_older_one_when_the_block_raises(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(stop), new_folder(path) as temporary:  # noqa: PT012
        (temporary / "half").write_text("half")
        assert len(names(tmp_path)) == 2
        raise stop
    assert names(path) == ["old"]
    assert names(tmp_path) == ["run"]


def test_new_folder_leaves_nothing_when_the_block_raises_at_a_new_path(tmp_path: Path) -> None:
    with pytest.raises(InterruptedWriteError), new_folder(tmp_path / "run") as temporary:  # noqa: PT012
        (temporary / "half").write_text("half")
        raise InterruptedWriteError
    assert names(tmp_path) == []


def test_write_json_output_can_be_parsed(tmp_path: Path) -> None:
    value = {"name": "Zürich", "scores": [0.1, 1e-300], "none": None}
    write_json(tmp_path / "a.json", value)
    raw = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(raw) == value
    assert "Zürich" in raw
    assert raw.endswith("}\n")
    write_json(tmp_path / "a.json", {"name": "Bern"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Bern"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_write_json_rejects_nan_and_infinity(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1.0])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"loss": value})
    assert json.loads(path.read_text()) == [1.0]
    assert names(tmp_path) == ["a.json"]


def test_write_json_rejects_other_objects_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1.0])
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"path": path})
    assert json.loads(path.read_text()) == [1.0]
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_of_any_writer_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "secret").touch(0o600)
        with new_file(tmp_path / "file") as file:
            file.unlink()
            file.touch(0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "folder" / "secret", tmp_path / "file"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Exception("I/O error (os error 28)")])
def test_an_error_of_writing_names_the_file(tmp_path: Path, error: Exception) -> None:
    for new in (new_file, new_folder):
        with pytest.raises(OSError, match="No space left on device") as caught, new(tmp_path / "out"):
            raise error
        assert caught.value.filename == str(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="another"), new_file(tmp_path / "out"):
        raise ValueError("another")
