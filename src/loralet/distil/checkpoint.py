"""Save and load the state of a distillation at the end of an epoch, as one file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from loralet.atomic import new_file
from loralet.distil.train import DistilState
from loralet.errors import RunError
from loralet.events import EpochEnded

NAME = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""State that torch's AdamW keeps for a tensor once it has had a gradient."""


def save_checkpoint(folder: Path, state: DistilState, metrics: int) -> None:
    """Write the state atomically.

    Args:
        folder: the student's folder.
        state: the state at the end of an epoch.
        metrics: size of metrics.jsonl at the end of that epoch, in bytes.
    """
    tensors = {f"weights/{name}": t.detach() for name, t in state.parameters.items()}
    for name, parameter in state.parameters.items():
        tensors |= {f"{moment}/{name}": t for moment, t in state.optimiser.state.get(parameter, {}).items()}
    place = {
        "epoch": state.epoch,
        "step": state.step,
        "metrics": metrics,
        "history": [dataclasses.asdict(e) for e in state.history],
    }
    with new_file(folder / NAME) as temporary:
        temporary.write_bytes(
            save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata={"place": json.dumps(place)})
        )


def load_checkpoint(folder: Path, state: DistilState) -> int:
    """Load a saved state into a new state of the same sizes.

    Returns:
        Size of metrics.jsonl at the end of that epoch, in bytes.

    Raises:
        RunError: the file is not a checkpoint of this student.
    """
    path = folder / NAME
    try:
        with safe_open(path, framework="pt") as file:
            place = json.loads(file.metadata()["place"])
            saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict: it has no __iter__
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.copy_(saved[f"weights/{name}"])
                found = {moment: saved[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in saved}
                if found:
                    state.optimiser.state[parameter] = {moment: t.to(parameter.device) for moment, t in found.items()}
        state.epoch, state.step = int(place["epoch"]), int(place["step"])
        state.history = [EpochEnded(**event) for event in place["history"]]
        return int(place["metrics"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {error}); start again in another folder"
        ) from error
