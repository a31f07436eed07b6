"""How many wrong labels ``loralet check`` finds, with a part of the labels changed at random.

    python benchmarks/label_errors.py LEAGUE AG_NEWS [--share 0.05] [--sets NAME ...] [--seed 0]

LEAGUE and AG_NEWS are the folders of ``benchmarks/league.py``; of each, the first rows of train.csv are read. Prints
precision and recall, also those of as many rows as were changed, and writes JSON. Labels that were wrong before count
as false alarms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from league import SETS
from machine import describe_machine

from loralet.atomic import write_json
from loralet.config import CheckConfig
from loralet.studies.checking import check_rows


def changed(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Labels of which a part is replaced by those of other rows, drawn until they differ."""
    random, found = np.random.default_rng(seed), labels.copy()
    for row in random.permutation(len(labels))[: round(share * len(labels))]:
        others = labels[labels != labels[row]]
        found[row] = others[random.integers(len(others))]
    return found


def scores(suspects: Sequence[int], wrong: np.ndarray) -> dict[str, float]:
    """Precision and recall of the suspects, and precision of the first ones, as many as there are wrong rows.

    Args:
        suspects: row numbers, the clearest first.
        wrong: whether each row has a changed label.
    """
    hits, count = wrong[np.array(suspects, np.int64)], int(wrong.sum())
    return {
        "precision": float(hits.mean()) if len(hits) else 0.0,
        "recall": float(hits.sum() / count),
        "first": float(hits[:count].sum() / count),
    }


def measure(source: Path, share: float, rows: int, seed: int) -> dict[str, Any]:
    """The scores on one data set."""
    table = pd.read_csv(source).dropna(subset=["text"])[["text", "label"]].head(rows).reset_index(drop=True)
    before = table["label"].to_numpy().astype(str)
    table["label"] = changed(before, share, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        table.to_csv(path, index=False)
        started = time.perf_counter()
        found = check_rows(CheckConfig(str(path), seed=seed), lambda event: None)
        seconds = time.perf_counter() - started
    lines = found.train.places.rows - found.train.places.rows.min()
    assert len(lines) == len(table)
    suspects = [finding.row for finding in found.findings if finding.kind == "label"]
    wrong = table["label"].to_numpy() != before
    return scores(suspects, wrong) | {"rows": len(table), "accuracy": found.accuracy, "seconds": seconds}


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("league", type=Path, help="folder of data sets")
    parser.add_argument("news", type=Path, help="folder of AG News")
    parser.add_argument("--share", type=float, default=0.05, help="share of the labels to change")
    parser.add_argument("--rows", type=int, default=4000, help="rows to read of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="+", default=[*SETS, "ag_news"], help="names of the data sets")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.sets:
        folder = arguments.news if name == "ag_news" else arguments.league / name
        row = found[name] = measure(folder / "train.csv", arguments.share, arguments.rows, arguments.seed)
        shown = "  ".join(f"{key} {row[key]:.3f}" for key in ("accuracy", "precision", "recall", "first"))
        print(f"{name:22} {row['rows']:6,} rows  {shown}  {row['seconds']:.1f} s", flush=True)
    print(
        "mean", {key: round(fmean(row[key] for row in found.values()), 3) for key in ("precision", "recall", "first")}
    )
    write_json(arguments.out, {"share": arguments.share, "sets": found, "machine": describe_machine()})


if __name__ == "__main__":
    main()
