"""A command run in this process, in a folder, with its streams caught."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from loralet.cli import main


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(place: Path, *arguments: str) -> Done:
    """Run ``loralet`` with these arguments, started in a folder."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(place)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as error:
                status = int(error.code or 0)
    finally:
        os.chdir(before)
    return Done(status, out.getvalue(), err.getvalue())
