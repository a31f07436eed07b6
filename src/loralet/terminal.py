"""Output of texts that others wrote: labels, texts, names of columns and files.

Such a text may contain escape sequences, which would change the terminal's title, colours or content, or characters
that the encoding of the output does not have.
"""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.segment import Segment

CONTROLS = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {0x7F: 0x2421}
"""Control characters and the pictures of them in Unicode; tabs and line ends are kept."""
HIDDEN = (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""The other control characters, of which some terminals take 0x9B for the beginning of an escape sequence, and those
that turn the direction of the text after them."""
SHOWN = CONTROLS | dict.fromkeys(HIDDEN, 0xFFFD)
UTF8 = ("utf-8", "utf8", "utf-8-sig")


def visible(text: str) -> str:
    """A text with control characters as visible ones, except for tabs and line ends."""
    return text.translate(SHOWN)


def shown_label(name: str) -> str:
    """A label; in quotes and with escapes if it has invisible characters, or accents as characters of their own."""
    apart = unicodedata.normalize("NFC", name) != name
    odd = "".join(c if c.isprintable() and not (apart and unicodedata.combining(c)) else ascii(c)[1:-1] for c in name)
    return odd if odd == name else f"'{odd}'"


class _Shown(ConsoleRenderable):
    """What is printed, with visible control characters. Styles become escape sequences later."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _Show(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


def terminal(**options: Any) -> Console:
    """A console that shows control characters instead of sending them to the terminal; options as for rich's class."""
    console = Console(**options)
    console.push_render_hook(_Show())
    return console


def note(text: str) -> None:
    """Print a line about the work on standard error."""
    print(f"· {visible(text)}", file=sys.stderr)


def prepare_streams() -> None:
    """Make the standard streams usable: closed ones are empty, and no character ends a command.

    Characters that the encoding of a stream does not have are written as escapes, such as ``\\xb7``.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_utf8(out: TextIO) -> None:
    """Encode the following output as UTF-8, for data that other programs read."""
    if isinstance(out, io.TextIOWrapper) and (out.encoding or "").lower() not in UTF8:
        out.reconfigure(encoding="utf-8")
