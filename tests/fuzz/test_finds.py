"""What generated input has found, one case of each kind; the message says what is wrong."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from loralet.cli import parse
from loralet.config import StudyConfig, TrainConfig
from loralet.config.toml import read_options
from loralet.data.files import Columns, read_table
from loralet.data.readers import content
from loralet.data.texts import read_texts
from loralet.errors import ConfigError, DataError, UserError
from loralet.hub.tensors import read_tensors


def written(path: Path, raw: str | bytes) -> Path:
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return path


@pytest.mark.parametrize("value", ["0x" + "f" * 5000, str(2**63), str(-(2**63) - 1), "0x" + "f" * 20])
@pytest.mark.parametrize("option", ["seed = {}", "[training]\nsteps = {}", "[adapter]\nrank = {}"])
def test_whole_numbers_beyond_64_bits_are_refused_in_files(tmp_path: Path, option: str, value: str) -> None:
    path = written(tmp_path / "options.toml", option.format(value))
    with pytest.raises(ConfigError, match="a whole number of at most 64 bits is expected"):
        read_options(path, TrainConfig)
    lists = written(tmp_path / "lists.toml", f"[grid]\nseeds = [{value}]")
    with pytest.raises(ConfigError, match=r"seeds is .*a whole number of at most 64 bits is expected"):
        read_options(lists, StudyConfig)


@pytest.mark.parametrize("arguments", [("train", "--seed"), ("train", "--steps"), ("study", "--seeds")])
def test_whole_numbers_beyond_64_bits_are_refused_on_the_command_line(arguments: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="a whole number of at most 64 bits is expected"):
        parse([*arguments, str(2**63)])


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    path = written(tmp_path / "options.toml", f"seed = '{'x' * 5000}'")
    with pytest.raises(ConfigError, match=r"seed is 'xx.*\.\.\.: a whole number is expected") as caught:
        read_options(path, TrainConfig)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("mark", ['"', "'", "\0"])
def test_a_declared_separator_that_cannot_be_one_is_no_declaration(tmp_path: Path, mark: str) -> None:
    path = written(tmp_path / "a.csv", f"sep={mark}\ntext,label\nx,a\ny,b\n")
    with pytest.raises(DataError):
        read_table(path, Columns())


def test_a_space_separates_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text label\n"one two" a\nthree b\n')
    for columns in (Columns(separator=" "), Columns(separator=" ", quoting="standard")):
        assert read_table(path, columns).texts.to_pylist() == ["one two", "three"]
    declared = written(tmp_path / "b.csv", 'sep= \ntext label\n"one two" a\nthree b\n')
    assert read_table(declared, Columns()).texts.to_pylist() == ["one two", "three"]


def refused(function: object, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)  # type: ignore[operator]
    return str(caught.value)


@pytest.mark.parametrize("first", ["one\rtwo, three\r", "x" * 200_000, '"' + "y" * 200_000 + ", textual"])
def test_lines_with_carriage_returns_and_very_long_lines_are_texts(tmp_path: Path, first: str) -> None:
    path = written(tmp_path / "texts.txt", f"{first}\nsecond\n")
    assert len(read_texts(str(path), "auto", Columns()).texts) == 2
    assert "looks like the beginning of a table" in refused(
        read_texts, str(written(tmp_path / "table.txt", '"id","text"\n1,a\n')), "auto", Columns()
    )


def test_a_damaged_pickle_is_refused_whatever_it_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    path = written(tmp_path / "pytorch_model.bin", b"PK\x03\x04")
    for error in (OSError(22, "Invalid argument"), IndexError("x"), AssertionError(), OverflowError("y")):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(ValueError, match="the download may be incomplete"):
            read_tensors(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_file_that_expands_without_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(content, "SMALL", 1 << 20)
    small = compress(b"text,label\n" + b"good,a\nbad,b\n" * 1000)
    assert len(read_table(written(tmp_path / "a.csv.gz", small), Columns()).texts) == 2000
    bomb = compress(b"\0" * (1 << 20) + b"\0")
    assert "expands to more than 1 MB" in refused(read_table, written(tmp_path / "b.csv.gz", bomb), Columns())


@pytest.mark.parametrize("form", ["auto", "lines", "csv", "tsv", "jsonl"])
def test_a_file_with_a_byte_order_mark_only_is_empty(tmp_path: Path, form: str) -> None:
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE):
        words = refused(read_texts, str(written(tmp_path / "texts.txt", mark)), form, Columns())
        assert "empty" in words or "only blank lines" in words or "no rows" in words
