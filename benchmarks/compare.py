"""Compare the speed of this checkout of loralet with another, such as an older commit, on this machine.

    python benchmarks/compare.py BASE_CHECKOUT DATA MODEL [--rounds 5] [--steps 300] [--tolerance 0.03]

The contenders of both checkouts run alternately, each in its own process, with ``benchmarks/contenders.py`` of its
checkout. Prints the ratio of the medians for each kind of work; above 1, this checkout is faster. The exit status is 1
if a kind of work is slower by more than the tolerance. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import native_instructions
from process import ROOT, Arguments, UnknownContenderError, run_contender

from loralet.cpu import cpu_model

WORKS: dict[str, tuple[str, ...]] = {
    "one run": ("loralet, one run",),
    "one run, dropout 0.1": ("loralet, one run, dropout 0.1",),
    "pack of nine": ("loralet, pack of nine (rows x runs)",),
    "pack of nine with checks": (
        "loralet, pack of nine, check every 50 steps (rows x runs)",
        "loralet, pack of nine with a check every 50 steps (rows x runs)",
    ),
    "evaluation": ("evaluation, loralet",),
    "texts to labels": ("texts to labels, loralet",),
}
"""Names of the contender for each kind of work, newest first. Older checkouts may use an older name."""


def speed(names: Sequence[str], arguments: Arguments, checkout: Path) -> float:
    """Rows per second of the first of these contenders that the checkout has."""
    for name in names:
        try:
            return run_contender(name, arguments, checkout)["rows_per_second"]
        except UnknownContenderError:
            continue
    raise SystemExit(f"{checkout / 'benchmarks' / 'contenders.py'} has no contender {' or '.join(map(repr, names))}")


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, metavar="BASE_CHECKOUT", help="the checkout to compare with")
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="optimiser steps per training")
    parser.add_argument("--tolerance", type=float, default=0.03, help="allowed slowdown, as a fraction")
    parser.add_argument("--only", default="", help="measure only kinds of work whose name contains this")
    arguments = parser.parse_args()
    base, work = arguments.base.resolve(), Arguments(arguments.data, arguments.model, arguments.steps)
    print(f"CPU: {cpu_model()}; native backend: {native_instructions() or 'not available'}")
    print(f"{'rows/s, median':28} {'base':>9} {'this':>9} {'ratio':>7}  ratio of each round")
    slower: list[str] = []
    for title, names in WORKS.items():
        if arguments.only not in title:
            continue
        speeds: dict[Path, list[float]] = {base: [], ROOT: []}
        for i in range(arguments.rounds):
            for checkout in (base, ROOT) if i % 2 else (ROOT, base):  # alternate the order to cancel clock drift
                speeds[checkout].append(speed(names, work, checkout))
        before, after = (median(speeds[checkout]) for checkout in (base, ROOT))
        each = " ".join(f"{new / old:.3f}" for old, new in zip(speeds[base], speeds[ROOT], strict=True))
        print(f"{title:28} {before:9,.0f} {after:9,.0f} {after / before:7.3f}  {each}", flush=True)
        if after < before * (1 - arguments.tolerance):
            slower.append(title)
    if slower:
        print(f"slower by more than {arguments.tolerance:.0%}: {', '.join(slower)}", file=sys.stderr)
    return int(bool(slower))


if __name__ == "__main__":
    raise SystemExit(main())
