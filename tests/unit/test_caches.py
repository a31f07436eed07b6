"""Caches heal, serve several processes at once, and cost only time if they cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from checkpoints import vocabulary
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from loralet import cache as cache_module
from loralet.atomic import new_entry, remove_entry
from loralet.backends.native.library_cache import store
from loralet.cache import HUB_CACHES, cache_folder, provide_hub_cache, writable_cache_folder
from loralet.data import arrays as arrays_module
from loralet.data.arrays import read_arrays, write_arrays
from loralet.data.tokens import Tokens, tokenise

TEXTS = ["the cat sat", "", "a dog ran up the mat on a cat", "on the mat"]
PROCESSES, ENTRIES = 4, 30


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    words = dict.fromkeys([*vocabulary(), "the", "cat", "sat", "a", "dog", "ran"])
    return Tokenizer.from_str(BertWordPieceTokenizer({word: i for i, word in enumerate(words)}).to_str())


def column(texts: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def same(a: Tokens, b: Tokens) -> bool:
    return bool(np.array_equal(a.ids, b.ids) and np.array_equal(a.starts, b.starts))


def test_arrays_are_read_back_and_mapped(tmp_path: Path) -> None:
    given = [np.arange(7, dtype=np.int32), np.zeros((0, 3)), np.ones((2, 5), np.int8)]
    write_arrays(tmp_path / "new" / "file", given)
    found = read_arrays(tmp_path / "new" / "file")
    assert found is not None
    for array, wanted in zip(found, given, strict=True):
        assert np.array_equal(array, wanted)
        assert array.dtype == wanted.dtype
    assert isinstance(found[0], np.memmap)
    assert read_arrays(tmp_path / "missing") is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(b"x"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not an array\n" * 100),
    "a bit of the header": lambda path: flip(path, 20),
    "a bit of the ids": lambda path: flip(path, 130),
    "a bit of the checksum": lambda path: flip(path, -1),
    "one array": lambda path: write_arrays(path, [np.arange(3)]),
    "other rows": lambda path: write_arrays(path, [np.arange(3), np.array([0, 3])]),
    "other offsets": lambda path: write_arrays(path, [np.arange(3), np.array([0, 1, 1, 2, 9])]),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_tokens_are_made_again(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    wanted = tokenise(column(TEXTS), tokenizer, 32)
    assert same(tokenise(column(TEXTS), tokenizer, 32, tmp_path), wanted)
    (path,) = (tmp_path / "tokens").iterdir()
    intact = path.read_bytes()
    DAMAGES[name](path)
    assert same(tokenise(column(TEXTS), tokenizer, 32, tmp_path), wanted)
    assert path.read_bytes() == intact


@pytest.mark.parametrize("at", ["cache", "tokens", "entry"])
def test_a_cache_that_cannot_be_written_costs_only_time(
    tokenizer: Tokenizer, tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "cache"
    if at == "cache":
        place.write_text("a file")
    elif at == "tokens":
        place.mkdir()
        (place / "tokens").write_text("a file")
    else:
        tokenise(column(TEXTS), tokenizer, 32, place)
        (path,) = (place / "tokens").iterdir()
        as_folder(path)
        (path / "inside").touch()
    assert same(tokenise(column(TEXTS), tokenizer, 32, place), tokenise(column(TEXTS), tokenizer, 32))
    assert "cannot be used" in caplog.text
    assert len(caplog.messages) == 1


def test_a_full_disk_costs_only_time(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays_module.np.lib.format, "write_array", full)
    assert same(tokenise(column(TEXTS), tokenizer, 32, tmp_path), tokenise(column(TEXTS), tokenizer, 32))
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "tokens").iterdir()) == []


FILL = f"""
import sys
from pathlib import Path
import pyarrow as pa
from tokenizers import Tokenizer
from loralet.data.tokens import tokenise
place = Path(sys.argv[1])
tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
while not (place / "go").exists():
    pass
for i in range({ENTRIES}):
    texts = pa.chunked_array([pa.array([f"the cat sat {{i}}"] * 200)])
    found = tokenise(texts, tokenizer, 32, place / "cache")
    assert len(found) == 200 and len(set(found.lengths.tolist())) == 1, i
print("fine")
"""


def test_four_processes_fill_an_empty_cache_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """120 of 120 are fine: no process moves or reads a half-written entry."""
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    command = [sys.executable, "-c", FILL, str(tmp_path)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    time.sleep(1.0)
    (tmp_path / "go").touch()
    said = [process.communicate(timeout=120) for process in started]
    assert [out for out, _ in said] == ["fine\n"] * PROCESSES, said
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == ENTRIES


def test_a_folder_of_the_cache_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "entry"
    with new_entry(entry) as temporary:
        (temporary / "one").write_text("mine")
        entry.mkdir()
        (entry / "one").write_text("theirs")
        inode = entry.stat().st_ino
    assert (entry / "one").read_text() == "theirs"
    assert entry.stat().st_ino == inode
    assert list(entry.parent.iterdir()) == [entry]
    with pytest.raises(KeyError), new_entry(tmp_path / "cache" / "other"):
        raise KeyError
    assert list(entry.parent.iterdir()) == [entry]
    remove_entry(entry)
    remove_entry(entry)
    assert list(entry.parent.iterdir()) == []
    with new_entry(entry) as temporary:
        (temporary / "one").write_text("mine")
    assert (entry / "one").read_text() == "mine"


def test_a_temporary_cache_replaces_one_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "ours"))
    assert writable_cache_folder() == tmp_path / "ours"
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "file" / "cache"))
    made = writable_cache_folder()
    assert made.is_dir()
    assert made == writable_cache_folder()
    assert f"the cache {tmp_path / 'file' / 'cache'} cannot be used (Not a directory)" in caplog.text
    shutil.rmtree(made)
    cache_module._temporary.cache_clear()


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An existing folder; the home folder cannot be determined, and nothing else says where caches are."""
    for name in ("LORALET_CACHE", "XDG_CACHE_HOME", "HOME", *HUB_CACHES):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache_module._say_once.cache_clear()
    cache_module._temporary.cache_clear()
    return tmp_path


def test_a_user_without_a_home_has_no_cache(homeless: Path) -> None:
    assert str(cache_folder()).startswith(os.devnull)
    with pytest.raises(OSError, match="directory"):
        cache_folder().mkdir(parents=True)


def test_without_a_home_one_line_says_that_nothing_is_cached(
    homeless: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = tokenise(column(TEXTS), tokenizer, 32)
    for _ in range(2):
        assert same(tokenise(column(TEXTS), tokenizer, 32, cache_folder()), wanted)
    library = homeless / "kernels.so"
    library.touch()
    assert store(library, cache_folder() / "native", "kernels") is None
    assert writable_cache_folder().parent == homeless
    assert caplog.messages == [
        "this user has no home folder for the cache, which costs time at every start; "
        "set LORALET_CACHE to a folder that can be written"
    ]


@pytest.mark.parametrize("home", ["missing", "a file", "usable"])
def test_the_cache_of_the_hub_is_temporary_if_it_cannot_be_made(
    homeless: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HF_HOME", "")
    if home != "missing":
        monkeypatch.setattr(Path, "home", lambda: homeless / "home")
    if home == "a file":
        (homeless / "home").touch()
    provide_hub_cache()
    given = os.environ["HF_HOME"]
    assert bool(given) == (home != "usable")
    if given:
        assert Path(given).parent.parent == homeless
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    provide_hub_cache()
    assert os.environ["HF_HOME"] == "/elsewhere"
