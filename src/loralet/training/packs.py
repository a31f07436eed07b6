"""Which runs share a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from loralet.adapters.pack import HeadKind, Pack, PackShape
from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.errors import ConfigError
from loralet.models.heads import Pooling
from loralet.models.table import EncoderTable
from loralet.runs.run import Run


def adapter_run(model: str, adapter: AdapterSpec, lr: float, seed: int, marks: str = "", lr_ratio: float = 1.0) -> Run:
    """A run of an adapter, or a linear probe for rank 0, with an id that says what it is.

    Args:
        model: the backbone.
        adapter: its configuration.
        lr: peak learning rate.
        seed: of the run.
        marks: tells the id from others of the same rank, alpha, lr and seed.
        lr_ratio: learning rate of B over that of A.
    """
    if adapter.rank == 0:
        return Run(f"probe-s{seed}", model, "linear-probe", HEAD_ALONE, lr, seed, lr_ratio)
    name = f"{adapter.method}-r{adapter.rank}-a{short(adapter.alpha)}-lr{short(lr)}{marks}-s{seed}"
    return Run(name, model, "lora", adapter, lr, seed, lr_ratio)


def short(value: float) -> str:
    """A number as an id has it: the shortest text that still is that number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def resolved(run: Run, table: EncoderTable) -> Run:
    """The run with its targets resolved to the linear layers of its encoder.

    Raises:
        ConfigError: the encoder has no linear layer of a name.
    """
    try:
        return replace(run, adapter=run.adapter.on(table.targets))
    except ValueError as error:
        raise ConfigError(f"{run.model}: {error}") from error


def group(runs: Iterable[Run], fits: Callable[[Sequence[Run]], bool] = lambda runs: True) -> list[list[Run]]:
    """Runs that see the same batches, and so share a pack: one model, seed and adapter method.

    Full fine-tuning always has a pack of its own; a linear probe goes with the first method.

    Args:
        runs: what is to be trained.
        fits: whether these runs fit into memory side by side; where they do not, they are split by :func:`divide`.
    """
    packs: dict[tuple[str, int, str, str], list[Run]] = {}
    every = list(runs)
    first = next((run.adapter.method for run in every if run.role == "lora"), HEAD_ALONE.method)
    for run in every:
        method = run.adapter.method if run.role == "lora" else first
        packs.setdefault((run.model, run.seed, method, run.id if run.role == "full" else ""), []).append(run)
    return [part for pack in packs.values() for part in divide(pack, fits)]


def divide(runs: list[Run], fits: Callable[[Sequence[Run]], bool]) -> list[list[Run]]:
    """The fewest packs that each fit, their sizes equal within one; a single run is a pack even where it does not fit.

    Runs of equal targets, dropout and rank stay together: a pack pads its ranks to the largest, and is slower for all if
    one run has dropout.
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
    """The pack of these runs, whose targets are resolved.

    Args:
        runs: of one adapter method.
        table: of the encoder.
        outputs: logits of a row.
        head, head_dropout, pooling: see :class:`loralet.adapters.pack.PackShape`.
    """
    full = any(run.role == "full" for run in runs)
    method = next((run.adapter.method for run in runs if run.adapter.rank), HEAD_ALONE.method)
    shape = PackShape(table, outputs, head, head_dropout, full, pooling)
    return Pack(shape, [run.numbers(table.layers) for run in runs], method)
