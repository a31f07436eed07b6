"""The documentation's pages and the snippets on them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md"))))


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, its code, and the line number in the page at which the code starts, from 1."""

    language: str
    code: str
    line: int

    def commands(self) -> list[tuple[list[str], str | None]]:
        """Each command line of a shell snippet: its arguments, and the file to which its output is redirected."""
        found = []
        for line in self.code.splitlines():
            words = shlex.split(line, comments=True)
            if not words:  # a comment
                continue
            assert Path(words[0]).name == "loralet", line
            target = None
            if ">" in words:
                words, target = words[: words.index(">")], words[words.index(">") + 1]
            found.append((words[1:], target))
        return found


def snippets(page: str, *languages: str) -> list[Snippet]:
    """The fenced blocks of a page in these languages, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Snippet(m[1], m[2], text.count("\n", 0, m.start()) + 2)
        for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if m[1] in languages
    ]


def inline_commands(page: str) -> list[str]:
    """The inline commands of a page, without the leading ``loralet``."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`loralet ([^`]+)`", text)
