"""Run commands in this process with captured streams, and parse command lines into options."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loralet.cli import main, parse


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(place: Path, *arguments: str, stdin: str = "") -> Done:
    """Run ``loralet`` with these arguments in a folder."""
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(place)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patch.setattr(sys, "argv", ["loralet", *arguments])
            try:
                status = main(arguments)
            except SystemExit as error:
                status = int(error.code or 0)
    finally:
        os.chdir(before)
    return Done(status, out.getvalue(), err.getvalue())


def parts(*arguments: str) -> tuple[Any, ...]:
    """The option objects with which a command is called."""
    command: Any = parse(arguments)
    found: tuple[Any, ...] = command.args[1]
    return found


def options(*arguments: str) -> Any:
    """The main options of a command, the first of its parts."""
    return parts(*arguments)[0]
