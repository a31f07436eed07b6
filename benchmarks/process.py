"""Runs a contender in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from work import FOLDER, Measured

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Arguments:
    """Arguments of ``contenders.py``: data, backbone, optimiser steps, and further options."""

    data: str
    model: str
    steps: int
    options: tuple[str, ...] = ()


class UnknownContenderError(Exception):
    """The checkout has no contender of that name."""


def run_contender(
    name: str, arguments: Arguments, checkout: Path = ROOT, variables: Mapping[str, str] | None = None
) -> Measured:
    """Run one contender once, on the CPU, without the hub.

    loralet runs with passively waiting OpenMP threads, as from its command line. The peers run with torch's defaults.

    Args:
        name: name of the contender.
        arguments: its arguments.
        checkout: checkout of loralet whose ``benchmarks/contenders.py`` and ``src`` are used.
        variables: further environment variables.

    Raises:
        UnknownContenderError: the checkout has no contender of that name.
        SystemExit: the contender failed; the message ends with the end of its output.
    """
    script = checkout / "benchmarks" / "contenders.py"
    command = [sys.executable, str(script), name, arguments.data, arguments.model, "--steps", str(arguments.steps)]
    command += arguments.options
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            FOLDER: folder,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(checkout / "src"), os.environ.get("PYTHONPATH")])),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "true",
            "CUDA_VISIBLE_DEVICES": "",
            **(variables or {}),
        }
        if "loralet" in name:
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 2 and "invalid choice" in done.stderr:
        raise UnknownContenderError(name)
    if done.returncode:
        raise SystemExit(f"{name} in {checkout} failed:\n{done.stderr[-2000:]}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured
