"""Changes of valid files: of their bytes, and of the values of their JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

TOKENS = (
    *(b'"', b'""', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\\", b'\\"', b"#", b"sep=,\n", b'sep="\n'),
    *(b"sep= \n", b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe", b"\xe2\x80\xa8"),
    *(b"{", b"}", b"[", b"]", b":", b"null", b"NaN", b"1e999", b"-", b"0", b"9" * 400, b"9" * 5000, b"\\ud800"),
    *(b"[" * 3000, b'{"a":' * 3000, b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"PK\x03\x04", b"PAR1", b"ARROW1"),
    *(b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x80\x02", b"version https://git-lfs.github.com/spec/v1\n"),
)
"""Bytes that a reader treats specially, in some format."""

numbers = (
    st.integers(-3, 70)
    | st.sampled_from([2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, -(2**63), 10**4000])
    | st.floats()
    | st.sampled_from([0.0, -0.0, 1e-320, 1e38, 1e300, 1.5])
)
strings = st.text(max_size=12) | st.sampled_from(
    ["", " ", ".", "..", "../x", "/", "a/b", "main", "lora", "bert", "gelu", "\x00", "\ud800", "(.*)*", "x" * 300]
)
scalars = st.none() | st.booleans() | numbers | strings
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(strings, inner, max_size=4), max_leaves=8
)
"""Any JSON."""


def mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any], share: int = 3) -> st.SearchStrategy[Any]:
    """``share`` times as many values of the first strategy as of the second."""
    return st.integers(0, share).flatmap(lambda number: other if number == share else usual)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes, most: int = 4, tokens: Sequence[bytes] = TOKENS) -> bytes:
    """Content with up to ``most`` changes: bytes overwritten, inserted, removed, repeated, or cut off."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(made))))
        size = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["overwrite", "insert", "remove", "repeat", "cut", "flip", "token"]))
        if kind == "overwrite":
            made[place : place + size] = draw(st.binary(min_size=size, max_size=size))
        elif kind == "insert":
            made[place:place] = draw(st.binary(min_size=1, max_size=size))
        elif kind == "remove":
            del made[place : place + 4 * size]
        elif kind == "repeat":
            made[place:place] = made[place : place + size] * draw(st.integers(1, 30))
        elif kind == "cut":
            del made[place:]
        elif kind == "flip" and place < len(made):
            made[place] ^= 1 << draw(st.integers(0, 7))
        else:
            made[place:place] = draw(st.sampled_from(tokens))
    return bytes(made)


@st.composite
def changed_json(draw: st.DrawFn, content: Any, most: int = 3, fitting: st.SearchStrategy[Any] = values) -> Any:
    """A JSON value in which up to ``most`` values are replaced, removed or added, at any depth."""
    made = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, most))):
        places: list[tuple[Any, Any]] = []
        _collect(made, places)
        if not places:
            return draw(fitting)
        owner, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "repeat"]))
        if kind == "replace":
            owner[key] = draw(fitting)
        elif kind == "remove":
            del owner[key]
        elif isinstance(owner, dict):
            owner[draw(strings)] = draw(fitting) if kind == "add" else owner[key]
        else:
            owner.insert(key, draw(fitting) if kind == "add" else owner[key])
    return made


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        places.append((value, key))
        _collect(one, places)


def json_bytes(value: Any) -> bytes:
    """JSON as a file has it, with NaN, infinities and lone surrogates as Python writes them."""
    return json.dumps(value).encode()


def changed_file(content: bytes) -> st.SearchStrategy[bytes]:
    """A JSON file with changed values, or with changed bytes."""
    return changed_json(json.loads(content)).map(json_bytes) | changed_bytes(content)


def one_changed(files: dict[str, bytes], change: Callable[[str, bytes], st.SearchStrategy[bytes]]) -> Any:
    """Some files, with one or two of them changed or missing.

    Args:
        files: content by name.
        change: the changes of a file.
    """

    @st.composite
    def changed(draw: st.DrawFn) -> dict[str, bytes]:
        made = dict(files)
        for name in draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=2, unique=True)):
            if draw(st.integers(0, 19)) == 0:
                del made[name]
            else:
                made[name] = draw(change(name, made[name]))
        return made

    return changed()
