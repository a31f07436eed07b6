"""Out-of-fold predictions: for every training row, those of a run that was not trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from loralet.atomic import new_file
from loralet.errors import RunError
from loralet.runs.folder import PREDICTED, TARGETS

NAME = "out-of-fold.safetensors"
FOLDS = "folds"
LOGITS = "logits/"
"""Prefix of the logits of a run; ids contain no slash."""


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of the training rows, in the order of :attr:`loralet.data.sources.Dataset.train`.

    Args:
        targets: targets of the rows.
        folds: fold of each row, from 0.
        logits: by id of a trained run, of a linear model on words and of their hybrid: for each row, the logits of the
            same configuration trained without its fold, not divided by the temperature.
        predicted: by id of a baseline: for each row, the target predicted by the model fitted without its fold.
    """

    targets: np.ndarray
    folds: Int[np.ndarray, "m"]
    logits: Mapping[str, Float[np.ndarray, "m c"]]
    predicted: Mapping[str, np.ndarray]


def save_out_of_fold(folder: Path, found: OutOfFold) -> None:
    """Write the predictions into a run folder, atomically."""
    arrays = {TARGETS: found.targets, FOLDS: found.folds}
    arrays |= {LOGITS + run: logits for run, logits in found.logits.items()}
    arrays |= {PREDICTED + run: values for run, values in found.predicted.items()}
    with new_file(folder / NAME) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)


def read_out_of_fold(folder: Path) -> OutOfFold:
    """Read the predictions of a run folder.

    Raises:
        RunError: the run was trained without folds, or the file is broken.
    """
    path = folder / NAME
    if not path.exists():
        raise RunError(f"{folder}: no out-of-fold predictions ({NAME}); loralet train --folds 5 writes them")
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is not a dict
        parts = [
            {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            for prefix in (LOGITS, PREDICTED)
        ]
        return OutOfFold(tensors[TARGETS], tensors[FOLDS], *parts)
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{path}: cannot be read as predictions ({error})") from error
