"""The works of the speed matrix with their contenders, and the comparison of loralet with the best peer of a set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from encoders import GIVEN, MINILM
from instructions import WITH_BF16
from work import Measured

LARGE = "12x768"
PEER, OURS, VARIANT = "peer", "loralet", "variant"
SHARE_OF_BEST = 0.5
"""Contenders slower than this share of the best one of their work run in the first round only."""


class Contender(NamedTuple):
    """A contender of a work.

    Args:
        name: its name in ``contenders.MATRIX``.
        role: ``loralet``; ``variant`` (loralet with other options); or ``peer``.
        precision: ``auto``: bf16 if the instruction set has it; else the only precision.
        limited: whether it can be limited to an instruction set; others run with the best one only.
        package: a package that it needs beyond those of all contenders.
    """

    name: str
    role: str
    precision: str = "auto"
    limited: bool = True
    package: str = ""

    def precision_on(self, instructions: str) -> str:
        """``fp32``, ``bf16`` or ``int8``."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if instructions in WITH_BF16 else "fp32"


def _trained(work: str, peer: str) -> tuple[Contender, ...]:
    return (
        Contender(f"{peer}, Trainer + PEFT", PEER, "fp32"),
        Contender(f"{work}, loralet", OURS),
        Contender(f"{peer}, Trainer + PEFT, bf16", PEER, "bf16"),
        Contender(f"{work}, loralet, torch backend", VARIANT),
        Contender(f"{work}, loralet, fp32", VARIANT, "fp32"),
    )


ONE, NINE, CHECKED = "one run", "nine runs", "nine runs with checks"
DROPOUT, ONE_LAYER, ALL_LAYERS = "one run with dropout", "one run on value", "one run on all linear layers"
FULL = "full fine-tuning"
EVALUATION, LABELS, TEXT = "evaluation", "texts to labels", "one warm text"
PREPARED = (LABELS, TEXT)
"""Works whose contenders read the files of ``prepare.py``."""
WORKS: Mapping[str, tuple[Contender, ...]] = {
    ONE: _trained(ONE, "training"),
    NINE: _trained(NINE, "training"),
    DROPOUT: _trained(DROPOUT, "training"),
    CHECKED: _trained(CHECKED, "training with checks"),
    ONE_LAYER: _trained(ONE_LAYER, "training on value"),
    ALL_LAYERS: _trained(ALL_LAYERS, "training on all linear layers"),
    FULL: (
        Contender("full fine-tuning, Trainer", PEER, "fp32"),
        Contender("full fine-tuning, loralet", OURS),
        Contender("full fine-tuning, Trainer, bf16", PEER, "bf16"),
        Contender("full fine-tuning, loralet, torch backend", VARIANT),
        Contender("full fine-tuning, loralet, fp32", VARIANT, "fp32"),
    ),
    EVALUATION: (
        Contender("evaluation, Trainer + PEFT", PEER, "fp32"),
        Contender("evaluation, loralet", OURS),
        Contender("evaluation, Trainer + PEFT, bf16", PEER, "bf16"),
        Contender("evaluation, loralet, fp32", VARIANT, "fp32"),
    ),
    LABELS: (
        Contender("texts to labels, transformers pipeline", PEER, "fp32"),
        Contender("texts to labels, loralet", OURS),
        Contender("texts to labels, transformers pipeline, bf16", PEER, "bf16"),
        Contender("texts to labels, ONNX Runtime", PEER, "fp32", limited=False, package="onnxruntime"),
        Contender("texts to labels, loralet, fp32", VARIANT, "fp32"),
        Contender("texts to labels, ONNX Runtime, int8", PEER, "int8", limited=False, package="onnxruntime"),
        Contender("texts to labels, OpenVINO", PEER, limited=False, package="openvino"),
    ),
    TEXT: (
        Contender("one warm text, transformers pipeline", PEER, "fp32"),
        Contender("one warm text, loralet", OURS, "fp32"),
        Contender("one warm text, ONNX Runtime", PEER, "fp32", limited=False, package="onnxruntime"),
    ),
}
"""Contenders of each work. The peers train the nine runs one after the other, at the speed of one run."""
GROUPS = (
    (ONE, NINE, DROPOUT),
    (CHECKED,),
    (ONE_LAYER,),
    (ALL_LAYERS,),
    (FULL,),
    (EVALUATION,),
    (LABELS,),
    (TEXT,),
)
"""Works whose contenders run alternately."""


class Goal(NamedTuple):
    """A required and a target ratio.

    Args:
        encoder, work: the cell.
        sets: instruction sets that it holds for; empty: the best one of the machine.
        required, target: ratios of the rows per second.
        peer: the peer; empty: the best one.
    """

    encoder: str
    work: str
    sets: tuple[str, ...]
    required: float
    target: float
    peer: str = ""


ORT, ORT_INT8 = "texts to labels, ONNX Runtime", "texts to labels, ONNX Runtime, int8"
GOALS = (
    Goal(GIVEN, ONE, ("amx",), 9, 14),
    Goal(GIVEN, ONE, ("avx512-bf16",), 7, 8),
    Goal(GIVEN, ONE, ("avx2",), 4, 6),
    Goal(GIVEN, CHECKED, ("amx",), 11, 20),
    Goal(GIVEN, CHECKED, ("avx512-bf16",), 10, 12),
    Goal(GIVEN, CHECKED, ("avx2",), 6, 8),
    Goal(MINILM, ONE, ("amx",), 4, 8),
    Goal(MINILM, ONE, ("avx512-bf16",), 1.6, 2.2),
    Goal(MINILM, ONE, ("avx2",), 1.4, 2),
    Goal(LARGE, ONE, (), 1.3, 2),
    Goal(MINILM, EVALUATION, ("amx",), 5, 8),
    Goal(GIVEN, LABELS, (), 3, 6, ORT),
    Goal(GIVEN, LABELS, (), 2, 4, ORT_INT8),
    Goal(MINILM, LABELS, (), 3, 5, ORT),
    Goal(MINILM, LABELS, (), 1.5, 3, ORT_INT8),
)
"""Goals for the speed of loralet against its peers on the same instruction set."""

Cell = dict[str, Any]
"""The measurements of one contender: ``encoder``, ``instructions``, ``contender`` and the medians over its rounds."""
Key = tuple[str, str, str]
"""Encoder, instruction set, and name of a contender."""


def cell_of(key: Key, contender: Contender, rounds: Sequence[Measured], rates: Mapping[str, float]) -> Cell:
    """Medians over the rounds, and for loralet GFLOP/s and their share of the rate of large matrix products."""
    speeds = [found["rows_per_second"] for found in rounds]
    precision = contender.precision_on(key[1])
    if "bf16" in rounds[0]:
        precision = "bf16" if rounds[0]["bf16"] else "fp32"
    cell: Cell = dict(zip(("encoder", "instructions", "contender"), key, strict=True))
    cell |= {"precision": precision, "rows_per_second": median(speeds), "all": speeds}
    cell |= {"seconds": median(found["seconds"] for found in rounds)}
    cell |= {"peak_bytes": max(found["peak_bytes"] for found in rounds)}
    if "latency_ms" in rounds[0]:
        cell["latency_ms"] = median(found["latency_ms"] for found in rounds)
    if "flops_per_row" in rounds[0]:
        cell["gflops"] = rounds[0]["flops_per_row"] * median(speeds) / 1e9
        cell["share"] = cell["gflops"] / rates[precision]
    return cell


def key_of(cell: Cell) -> Key:
    """The key of a cell."""
    return cell["encoder"], cell["instructions"], cell["contender"]


def is_slow(contender: Contender, speeds: Mapping[str, float]) -> bool:
    """Whether a peer or variant is so slow that it cannot be the fastest of its role in any work.

    Args:
        contender: a contender of a group.
        speeds: rows per second of the contenders of the group.
    """
    if contender.role == OURS or any(goal.peer == contender.name for goal in GOALS):
        return False
    role = PEER if contender.role == PEER else OURS
    works = [contenders for contenders in WORKS.values() if contender in contenders]
    rivals = [{speeds.get(other.name, 0.0) for other in work if other.role == role} for work in works]
    return all(speeds[contender.name] < SHARE_OF_BEST * max(work) for work in rivals)


def compare(cells: Sequence[Cell], best: str) -> Iterator[dict[str, Any]]:
    """Compare loralet with the best peer of each encoder, work and instruction set.

    Args:
        cells: all cells.
        best: the best instruction set of the machine.

    Yields:
        loralet's cell with its ``ratio`` to the ``best_peer``, the ratio to each of the ``peers`` and of its own
        ``variants``, and the ``goals`` of the cell.
    """
    speeds = {key_of(cell): cell for cell in cells}
    for encoder, instructions in dict.fromkeys(key_of(cell)[:2] for cell in cells):
        for work, contenders in WORKS.items():
            found = {c: speeds.get((encoder, instructions, c.name)) for c in contenders}
            own = next(cell for c, cell in found.items() if c.role == OURS)
            if own is None:
                continue
            measured = {c.name: cell["rows_per_second"] for c, cell in found.items() if cell is not None}
            ratios = {name: own["rows_per_second"] / speed for name, speed in measured.items()}
            yield _comparison(encoder, instructions, work, own, contenders, ratios, best)


def _comparison(
    encoder: str,
    instructions: str,
    work: str,
    own: Cell,
    contenders: Sequence[Contender],
    ratios: Mapping[str, float],
    best: str,
) -> dict[str, Any]:
    peers = {c.name: ratios[c.name] for c in contenders if c.role == PEER and c.name in ratios}
    others = {c.name: ratios[c.name] for c in contenders if c.role == VARIANT and c.name in ratios}
    first = min(peers, key=peers.__getitem__, default=None)
    shown = ("rows_per_second", "latency_ms", "peak_bytes", "precision", "gflops", "share")
    return {
        "encoder": encoder,
        "work": work,
        "instructions": instructions,
        **{name: own[name] for name in shown if name in own},
        "best_peer": first,
        "ratio": None if first is None else peers[first],
        "peers": peers,
        "variants": others,
        "goals": _goals(encoder, work, instructions, peers, first, best),
    }


def _goals(
    encoder: str, work: str, instructions: str, peers: Mapping[str, float], first: str | None, best: str
) -> list[dict[str, Any]]:
    """The goals of a cell whose peer was measured."""
    found: list[dict[str, Any]] = []
    for goal in goals_of(encoder, work, instructions, best):
        peer = goal.peer or first
        if peer in peers:
            found.append({"peer": peer, "ratio": peers[peer], "required": goal.required, "target": goal.target})
    return found


def goals_of(encoder: str, work: str, instructions: str, best: str) -> list[Goal]:
    """The goals of a cell; ``best`` is the best instruction set of the machine."""
    own = [goal for goal in GOALS if (goal.encoder, goal.work) == (encoder, work)]
    return [goal for goal in own if instructions in (goal.sets or (best,))]


def selected(words: Sequence[str], axes: Sequence[Sequence[str]]) -> list[list[str]]:
    """The values of each axis named by the words; all values of an axis without a word.

    Raises:
        ValueError: a word that is no value of an axis.
    """
    unknown = [word for word in words if not any(word in axis for axis in axes)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not one of {', '.join(word for axis in axes for word in axis)}")
    return [[value for value in axis if value in words] or list(axis) for axis in axes]
