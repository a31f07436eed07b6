"""Grouping of runs into packs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from loralet.adapters.layout import PackShape
from loralet.adapters.pack import Pack
from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.errors import ConfigError
from loralet.models.pooling import HeadKind, Pooling
from loralet.models.table import EncoderTable
from loralet.runs.run import Run


def adapter_run(model: str, adapter: AdapterSpec, lr: float, seed: int, marks: str = "", lr_ratio: float = 1.0) -> Run:
    """A run of an adapter, or a linear probe for rank 0, with a descriptive id.

    Args:
        model: the backbone.
        adapter: configuration of the adapter.
        lr: peak learning rate.
        seed: seed of the run.
        marks: suffix of the id for settings other than rank, alpha, lr and seed.
        lr_ratio: ratio of the learning rate of B to that of A.
    """
    if adapter.rank == 0:
        return Run(f"probe-s{seed}", model, "linear-probe", HEAD_ALONE, lr, seed, lr_ratio)
    name = f"{adapter.method}-r{adapter.rank}-a{short(adapter.alpha)}-lr{short(lr)}{marks}-s{seed}"
    return Run(name, model, "lora", adapter, lr, seed, lr_ratio)


def short(value: float) -> str:
    """The shortest exact text of a number, for ids."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def resolved(run: Run, table: EncoderTable) -> Run:
    """A copy of the run with targets resolved to the linear layers of its encoder.

    Raises:
        ConfigError: the encoder does not have one of the linear layers.
    """
    try:
        return replace(run, adapter=run.adapter.on(table.targets))
    except ValueError as error:
        raise ConfigError(f"{run.model}: {error}") from error


def group(runs: Iterable[Run], fits: Callable[[Sequence[Run]], bool] = lambda runs: True) -> list[list[Run]]:
    """Group runs into packs by model, seed and adapter method.

    Full fine-tuning always has a separate pack, as has the default configuration of a study whose grid covers other
    linear layers, so that its time is its own. A linear probe joins the pack of the first method.

    Args:
        runs: runs to train.
        fits: whether a pack of these runs fits into memory; if not, :func:`divide` splits it.
    """
    packs: dict[tuple[str, int, str, str], list[Run]] = {}
    every = list(runs)
    first = next((run.adapter.method for run in every if run.role == "lora"), HEAD_ALONE.method)
    covered = {run.adapter.targets for run in every if run.role == "lora" and not run.default}
    for run in every:
        method = run.adapter.method if run.role == "lora" else first
        apart = run.role == "full" or (run.default and bool(covered) and run.adapter.targets not in covered)
        packs.setdefault((run.model, run.seed, method, run.id if apart else ""), []).append(run)
    return [part for pack in packs.values() for part in divide(pack, fits)]


def divide(runs: list[Run], fits: Callable[[Sequence[Run]], bool]) -> list[list[Run]]:
    """Split runs into the fewest packs that fit, with sizes that differ by at most one.

    A single run is a pack even if it does not fit. Runs with equal targets, dropout and rank stay together, because a
    pack pads its ranks to the largest, and one run with dropout slows down the whole pack.
    """
    if fits(runs) or len(runs) == 1:
        return [runs]
    alike = sorted(runs, key=lambda run: _likeness(run.adapter))
    for count in range(2, len(runs) + 1):
        cuts = [len(runs) * i // count for i in range(count + 1)]
        parts = [alike[a:b] for a, b in pairwise(cuts)]
        if count == len(runs) or all(fits(part) for part in parts):
            break
    return parts


def _likeness(adapter: AdapterSpec) -> tuple[int, tuple[str, ...], bool, int]:
    return len(adapter.targets), adapter.targets, adapter.dropout > 0, adapter.rank


def build_pack(
    runs: Sequence[Run],
    table: EncoderTable,
    outputs: int,
    head: HeadKind,
    head_dropout: float,
    pooling: Pooling = Pooling(),
) -> Pack:
    """Build the pack of runs with resolved targets.

    Args:
        runs: runs of one adapter method.
        table: layer table of the encoder.
        outputs: logits per row.
        head, head_dropout, pooling: see :class:`loralet.adapters.pack.PackShape`.
    """
    full = any(run.role == "full" for run in runs)
    method = next((run.adapter.method for run in runs if run.adapter.rank), HEAD_ALONE.method)
    shape = PackShape(table, outputs, head, head_dropout, full, pooling)
    return Pack(shape, [run.numbers(table.layers) for run in runs], method)
