"""Time that checkpoints take, as a share of training time: one run, a pack of nine, and full fine-tuning.

python benchmarks/checkpoints.py [DATA] [MODEL] [--seconds 100] [--every 30] [--out FILE]

A checkpoint is written to the disk (fsync). The share is that of the seconds between the first and the last step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from machine import describe_machine

from loralet.atomic import write_json
from loralet.config import GridOptions, StudyConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.events import Event
from loralet.interrupts import Interrupts
from loralet.runs.checkpoints import FOLDER, Checkpoints
from loralet.runs.environment import environment
from loralet.runs.folder import RunFolder
from loralet.studies.plan import plan_study
from loralet.studies.saving import PackRecord, StudySaver
from loralet.studies.study import prepare
from loralet.training.loop import TrainingState
from loralet.training.session import train_pack

CASES: dict[str, GridOptions] = {
    "one run": GridOptions(ranks=(16,), alphas=(32.0,), targets=("all-linear",), default=False),
    "nine runs": GridOptions(targets=("all-linear",), default=False),
    "full fine-tuning": GridOptions(ranks=(1,), alphas=(1.0,), full=True, default=False),
}


class Enough(Exception):  # noqa: N818  # not an error
    """The training has lasted long enough."""


@dataclass
class Timed:
    """Passes calls on to a record, and measures them until a number of seconds has passed."""

    record: PackRecord
    seconds: float
    writes: list[float] = field(default_factory=list)
    first: float = 0.0
    last: float = 0.0
    steps: int = 0

    def begin(self) -> None:
        """Begin the pack."""
        self.record.begin()

    def restore(self, state: TrainingState) -> None:
        """Restore nothing: the folder is new."""
        self.record.restore(state)

    def between(self, state: TrainingState) -> None:
        """Measure a call that may write a checkpoint."""
        started = time.perf_counter()
        self.first = self.first or started
        step = self.record.written
        self.record.between(state)
        self.last, self.steps = time.perf_counter(), state.step
        if self.record.written != step:
            self.writes.append(self.last - started)
        if self.last - self.first >= self.seconds:
            raise Enough

    def save(self) -> None:
        """Write the last state."""
        self.record.save()


def measure(name: str, data: str, model: str, seconds: float, every: float) -> dict[str, object]:
    """Train one case for some seconds."""
    grid = replace(CASES[name], models=(model,))
    config = StudyConfig(data=data, grid=grid, training=TrainingOptions(steps=10**6))
    prepared = prepare(plan_study(config), lambda event: None)
    role = "full" if name == "full fine-tuning" else "lora"
    runs = [run for runs in prepared.packs.packs for run in runs if run.role == role]
    with tempfile.TemporaryDirectory(dir=".") as place:
        found = environment(prepared.backends)
        with closing(RunFolder(Path(place), options_text(config), found)) as folder, Interrupts() as interrupts:

            def tell(event: Event) -> None:
                folder.record(event)

            saver = StudySaver(Checkpoints(Path(place) / FOLDER), folder, "key", every, interrupts, tell)
            timed = Timed(saver.pack(1, runs), seconds)
            timed.begin()
            with suppress(Enough):
                train_pack(prepared.sessions[model], runs, tell, saver=timed)
            size = sum(path.stat().st_size for path in (Path(place) / FOLDER).iterdir())
    return {
        "case": name,
        "steps": timed.steps,
        "seconds": timed.last - timed.first,
        "checkpoints": len(timed.writes),
        "bytes": size,
        "median_write_seconds": median(timed.writes) if timed.writes else None,
        "share": sum(timed.writes) / (timed.last - timed.first),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="news-mini")
    parser.add_argument("model", nargs="?", default="tiny-en")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--every", type=float, default=StudyConfig.checkpoint_every)
    parser.add_argument("--out", default="")
    options = parser.parse_args(arguments)
    rows = [measure(name, options.data, options.model, options.seconds, options.every) for name in CASES]
    print(f"{'case':18} {'steps':>8} {'seconds':>8} {'writes':>7} {'MB':>8} {'s each':>8} {'share':>8}")
    for row in rows:
        each = row["median_write_seconds"]
        print(
            f"{row['case']:18} {row['steps']:8,} {row['seconds']:8.1f} {row['checkpoints']:7} "
            f"{row['bytes'] / 1e6:8.2f} {each if each is None else f'{each:8.3f}'} {row['share']:8.3%}"
        )
    if options.out:
        write_json(Path(options.out), {"machine": describe_machine(), "every": options.every, "rows": rows})


if __name__ == "__main__":
    main()
