"""The table of damaged adapters, models and caches in docs/reference/bad-inputs.md, made from the tests.

    python tests/docs/bad_inputs.py

writes the page. Each row is a case of a test; ``test_bad_inputs.py`` checks that the page is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("", "oracle", "unit", "docs")]

from pages import ROOT  # noqa: E402 - the path must be set first

PAGE = ROOT / "docs" / "reference" / "bad-inputs.md"
CHECKSUM = "… (another sha256)"
HEAD = """\
# Bad inputs

Each command refuses these inputs with one message that begins with `loralet:` and the file's name, and exit status 2.
Each row is a case of a test. *Damage* is the case's name; *message* is what the message contains.
"""
ADAPTERS = """\
## Adapters of loralet

Files of an adapter folder. `… (another sha256)` stands for damage that only the checksums of `loralet.json` reveal;
folders written before there were checksums are read without this check.
"""
PEFT = """\
## Adapters of PEFT
"""
MODELS = """\
## Models and tokenizers
"""
OTHERS = """\
## Classifiers of other programs

Checkpoints of transformers, of `loralet export RUN --to hf` and of merged PEFT adapters, and folders with ONNX graphs.
Tokenizer files that disagree are read as transformers reads them, and a line says so.
"""
COMMANDS = """\
## Commands

What cannot be done is refused before the work begins, and no file is written or changed. *In* is the command or option.
"""
CACHES = """\
## Caches

A damaged entry of the cache is made again, without a message. A cache that cannot be written costs only time, and one
line says so.
"""


def table(rows: Iterator[tuple[str, str, str]]) -> str:
    """Rows of file or test, damage and message as a Markdown table."""
    lines = ["| in | damage | message |", "|---|---|---|"]
    lines += [f"| {where} | {_cell(name)} | {_code(words)} |" for where, name, words in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text != CHECKSUM else text


def page() -> str:
    """The whole page."""
    import test_caches
    import test_checkpoint_files
    import test_damaged_adapters
    import test_damaged_exports
    import test_damaged_peft_adapters
    import test_native_libraries
    import test_refusals

    files = test_checkpoint_files
    adapters = (("adapter", n, d.words or CHECKSUM) for n, d in test_damaged_adapters.DAMAGES.items())
    peft = (("PEFT adapter", n, words) for n, (words, _) in test_damaged_peft_adapters.DAMAGES.items())
    groups = {"shards": files.SHARD_DAMAGES, "pickled weights": files.PICKLED, "tokenizer.json": files.TOKENIZERS}
    models = ((where, name, words) for where, cases in groups.items() for name, (_, words) in cases.items())
    exports = {"checkpoint": test_damaged_exports.CHECKPOINTS, "ONNX graph": test_damaged_exports.GRAPHS}
    others = ((where, name, words) for where, cases in exports.items() for name, (words, _) in cases.items())
    refused = test_refusals.COMMANDS.items()
    commands = ((where, name, words) for where, cases in refused for name, (_, words) in cases.items())
    caches = [("tokens", name, "made again") for name in test_caches.DAMAGES]
    caches += [("kernels", name, "compiled again") for name in test_native_libraries.DAMAGES]
    parts = [HEAD, ADAPTERS, table(adapters), PEFT, table(peft), MODELS, table(models), OTHERS, table(others)]
    parts += [COMMANDS, table(commands), CACHES, table(iter(caches))]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
