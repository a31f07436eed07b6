"""Every command and every Python snippet of the documentation runs, page by page, in a folder with small tables."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path

import pytest
from command_line import command
from pages import PAGES, ROOT, snippets

TEXTS = {
    "delivery": ("my parcel has not arrived", "the box was left in the rain", "where is the van with my order"),
    "billing": ("the invoice shows the wrong amount", "I was charged twice", "please refund the second payment"),
    "technical": ("the app closes when I log in", "the page does not load", "my password is not accepted"),
}
RUN_ELSEWHERE = ("docs/benchmarks.md", "docs/reference/commands.md")
"""Pages that scripts write; they hold no snippets of their own."""


def _rows(repeats: int) -> list[tuple[str, str]]:
    return [(f"{text}, case {i}", label) for i in range(repeats) for label, texts in TEXTS.items() for text in texts]


def _write(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows] if header else rows)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the tables that the pages speak of."""
    rows = _rows(12)
    _write(tmp_path / "tickets.csv", ("text", "label"), rows)
    _write(tmp_path / "complaints.csv", ("complaint", "department"), rows)
    _write(tmp_path / "more-complaints.csv", ("complaint", "department"), _rows(2))
    _write(tmp_path / "bare.csv", (), [(label, text) for text, label in rows])
    _write(tmp_path / "inbox.csv", ("text",), [(text,) for text, _ in _rows(1)])
    (tmp_path / "sentences.txt").write_text("".join(f"{text}\n" for text, _ in _rows(20)), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page, "bash", "python")])
def test_the_snippets_of_a_page_run(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    rows = _rows(8)
    names: dict[str, object] = {"texts": [text for text, _ in rows], "labels": [label for _, label in rows]}
    for snippet in snippets(page, "bash", "python"):
        if snippet.language == "python":
            code = compile("\n" * (snippet.line - 1) + snippet.code, str(ROOT / page), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, names)
            continue
        for words, target in snippet.commands():
            done = command(place, *words)
            assert done.returncode == 0, f"{page}: loralet {' '.join(words)}\n{done.stdout}{done.stderr}"
            if target:
                Path(target).write_text(done.stdout, encoding="utf-8")
                assert done.stdout.strip(), words


def test_pages_with_snippets_are_found() -> None:
    pages = [page for page in PAGES if snippets(page, "bash", "python")]
    assert {"README.md", "docs/index.md", "docs/guides/python.md", "docs/guides/deploying.md"} <= set(pages)
    assert not set(pages) & set(RUN_ELSEWHERE)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
