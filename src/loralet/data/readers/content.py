"""The content of a file: decompressed and decoded text, or a message that says what the file is instead."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loralet.errors import DataError

UNPACK: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
"""First bytes of compressed files, and the functions that open them."""
SMALL = 64 << 20
"""Bytes to which any compressed file may expand."""
MOST = 200
"""How many times its own size a larger file may be. Text becomes 3 to 20 times smaller."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is a prefix
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
ARCHIVE = b"PK\x03\x04"
"""The first bytes of a zip archive, which spreadsheets are too."""
WORKBOOK = (
    'save its sheet as "CSV UTF-8", or convert it in Python: pandas.read_excel("FILE").to_csv("FILE.csv", index=False)'
)
OTHERS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; run git lfs pull"),
    (b"\xd0\xcf\x11\xe0", f"is an Excel workbook (.xls); {WORKBOOK}"),
    (b"PAR1", "is a Parquet file; give it the extension .parquet"),
    (b"ARROW1", "is an Arrow file; give it the extension .arrow"),
    (b"%PDF", "is a PDF document, not a table"),
    (b"SQLite format 3", "is an SQLite database; export the table as CSV"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; decompress it first (zstd -d)"),
)
PAGES = (b"<!doctype html", b"<html")
EMPTY = "the file is empty; it needs at least one row of text"


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is compressed with gzip, bzip2 or xz, whatever its name.

    Raises:
        DataError: the file cannot be read, is damaged, empty, or no table.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return unpacked(str(path), raw)


def unpacked(source: str, raw: bytes) -> bytes:
    """The content of a file, decompressed; raises as :func:`read_bytes`."""
    for mark, opened in UNPACK:
        if raw.startswith(mark):
            limit = max(SMALL, MOST * len(raw))
            try:
                with opened(io.BytesIO(raw)) as file:
                    raw = file.read(limit + 1)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise DataError(f"{source}: the compressed file is damaged ({error}); copy it again") from error
            if len(raw) > limit:
                raise DataError(
                    f"{source}: the compressed file expands to more than {limit >> 20} MB; decompress it first"
                )
    if not raw:
        raise DataError(f"{source}: {EMPTY}")
    return raw


def require_table(source: str, raw: bytes, form: str) -> None:
    """Check that bytes are not those of another kind of file.

    Args:
        source: the file, for messages.
        raw: its first bytes, or all of them.
        form: format by its extension.

    Raises:
        DataError: they are; the message says of which kind and what to do.
    """
    if raw.startswith(ARCHIVE):
        raise DataError(f"{source} {_archive(raw)}")
    own = {"parquet": b"PAR1", "arrow": b"ARROW1"}.get(form)
    for mark, words in OTHERS:
        if raw.startswith(mark) and mark != own:
            raise DataError(f"{source} {words}")
    if raw[:256].lstrip().lower().startswith(PAGES):
        raise DataError(f"{source} is an HTML page, not a table; download the file itself")


def _archive(raw: bytes) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(raw)).namelist()
    except zipfile.BadZipFile:
        names = []
    if any(name.startswith("xl/") for name in names) or not names:
        return f"is an Excel workbook (.xlsx); {WORKBOOK}"
    if "content.xml" in names:
        return "is a spreadsheet (.ods); save its sheet as CSV in UTF-8"
    return f"is a zip archive ({', '.join(names[:3])}); extract the table first"


def text_of(source: str, raw: bytes) -> str:
    """Text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Bytes that are not UTF-8 become lone surrogates, so that a reader can name their row.

    Raises:
        DataError: invalid UTF-16 or UTF-32.
    """
    mark, coding = next((pair for pair in MARKS if raw.startswith(pair[0])), (b"", ""))
    raw, coding = raw.removeprefix(mark), coding or _unmarked(raw)
    while mark and raw.startswith(mark):  # programs that add a mark to a file that has one
        raw = raw.removeprefix(mark)
    if coding == "utf-8":
        return raw.decode(errors="surrogateescape")
    try:
        return raw.decode(coding)
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not valid {coding.upper()} ({error.reason}); save it as UTF-8") from error


def _unmarked(raw: bytes) -> str:
    """The encoding of text without a mark: UTF-16 if every second of its first bytes is zero."""
    head = raw[:64]
    if len(head) >= 4 and len(head) % 2 == 0:
        if not any(head[1::2]) and all(head[::2]):
            return "utf-16-le"
        if not any(head[::2]) and all(head[1::2]):
            return "utf-16-be"
    return "utf-8"


def not_utf8(value: str) -> str:
    """Where a text with lone surrogates is not UTF-8, in words; empty for a valid text."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        try:
            raw = value.encode(errors="surrogateescape")
            raw.decode()
        except UnicodeDecodeError as fault:
            around = raw[max(0, fault.start - 20) : fault.start + 10]
            return f"byte {raw[fault.start]:#x} at {fault.start}: {around!r}"
        except UnicodeEncodeError:
            pass
        return f"a lone surrogate at {error.start}: {value[max(0, error.start - 20) : error.start + 10]!a}"
    return ""


def lines_of(source: str, raw: bytes) -> list[str]:
    """The lines of a text file, without line breaks. A last empty line does not count.

    Raises:
        DataError: a line that is not UTF-8, or nothing but a byte order mark.
    """
    text = text_of(source, raw)
    if not text:
        raise DataError(f"{source}: {EMPTY}")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not_utf8(text):
        number, fault = next((number, words) for number, words in enumerate(map(not_utf8, lines), 1) if words)
        raise DataError(f"{source}: line {number} is not UTF-8 ({fault}); save the file as UTF-8")
    return lines
