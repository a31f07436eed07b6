"""Which runs of a study are one configuration under several seeds."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from loralet.errors import RunError

SETTINGS = ("model", "rank", "alpha", "dropout", "scaling", "learning_rate")
LEFT = ("diverged", "halved")
"""Ends of a run that was not trained as far as the others."""


def over_seeds(runs: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """LoRA runs of results.json that were trained to their end, by configuration, where there are two seeds or more."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        if run["role"] == "lora" and run["validation"] and run["status"] not in LEFT:
            grouped.setdefault((*(run[name] for name in SETTINGS), tuple(run["targets"])), []).append(run)
    return [members for members in grouped.values() if len(members) > 1]


def chosen_seeds(results: dict[str, Any]) -> list[str]:
    """Ids of the seeds of the configuration of highest mean validation accuracy.

    Raises:
        RunError: no configuration has two seeds.
    """
    configurations = over_seeds(results["runs"])
    if not configurations:
        raise RunError("no LoRA configuration of this study was trained with two seeds: name runs, with --runs, or further run folders")
    best = max(configurations, key=lambda runs: fmean(run["validation"]["accuracy"] for run in runs))
    return [run["id"] for run in best]
