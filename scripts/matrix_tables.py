"""The section of the speed matrix in docs/benchmarks.md, and its rows in the README."""

from __future__ import annotations

from collections.abc import Iterator

from markdown_tables import Report, source, table

NAMES = {
    "amx": "AMX",
    "avx512-bf16": "AVX-512 BF16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "6x384": "MiniLM-L6",
}
"""Names of instruction sets and encoders in tables."""
SHOWN = (
    ("2x128", "one run"),
    ("2x128", "nine runs with checks"),
    ("6x384", "one run"),
    ("6x384", "evaluation"),
    ("2x128", "texts to labels"),
    ("6x384", "texts to labels"),
)
"""Encoder and work of the README's rows, on the best instruction set."""

INTRODUCTION = """\
Encoders of L layers and width W are named LxW; 2x128 and MiniLM-L6 are trained backbones, the others have random
weights. Each contender runs in its own process, alternately with the others of its cell; values are medians over
{rounds} rounds, without start-up and without a first step. Contenders that reach less than half of the best in the
first round are measured once. All contenders of a cell have the same rows, spread over all lengths of AG News.

* Every contender is limited to the instruction set of its row: loralet with `LORALET_ISA`, torch with
  `ONEDNN_MAX_CPU_ISA`, `ATEN_CPU_CAPABILITY` and `MKL_ENABLE_INSTRUCTIONS`. ONNX Runtime has no such switch, and
  OpenVINO obeys one only in part: both are measured with the best set only, with all instructions of the machine.
* *Trainer + PEFT* and the pipeline are measured in fp32 and in bf16; the better one counts. Training is r16 alpha 64
  on query and value unless the work names other layers, with dropout 0.1 on the adapters for the peers and, except in
  *one run with dropout*, none for loralet.
* *Nine runs* are one pack of loralet against nine runs of the peer; rows are counted once per run. The checks of
  *nine runs with checks* read 0.32 rows for each trained row (512 rows every 50 steps of 32 rows).
* *GFLOP/s* counts the matrix products of LoRA from the layer table and the real token counts
  (`benchmarks/flops.py`). The share is that of the rate of large matrix products with torch in the same precision
  and instruction set.

"""


def matrix(report: Report) -> str:
    """The section, without its heading."""
    goals = list(_goals(report))
    head = ("encoder", "work", "instruction set", "against", "times", "required", "target")
    skipped = [f"* {subject}: {reason}" for subject, reason in report["skipped"].items()]
    return "\n".join(
        [
            INTRODUCTION.format(**report) + source("matrix", report),
            *([table(head, goals)] if goals else []),
            table(
                ("encoder", "work", "instruction set", "loralet", "GFLOP/s", "best peer", "times", "peak memory"),
                _cells(report),
            ),
            *_variants(report),
            table(("GFLOP/s of large matrix products, torch", "fp32", "bf16"), _rates(report)),
            *(["Not measured:\n", "\n".join(skipped) + "\n"] if skipped else []),
        ]
    )


def _variants(report: Report) -> list[str]:
    """The table of loralet's other options, if they were measured."""
    rows = list(_options(report))
    if not rows:
        return []
    title = "Against other options of loralet; below 0.97, the default is not the fastest.\n"
    return [title, table(("encoder", "work", "instruction set", "option", "times"), rows)]


def shown(report: Report) -> list[tuple[object, ...]]:
    """The rows of the README."""
    best = report["machine"]["instruction_sets"][0]
    found = {(c["encoder"], c["work"]): c for c in report["comparisons"] if c["instructions"] == best}
    cells = [found[key] for key in SHOWN if key in found and found[key]["ratio"]]
    return [
        (
            f"speed of {cell['work']}, {named(cell['encoder'])}, {named(best)}, against {peer(cell['best_peer'])}",
            f"{cell['ratio']:.1f} times",
        )
        for cell in cells
    ]


def named(value: str) -> str:
    """The name of an encoder or instruction set in a table."""
    return NAMES.get(value, value)


def peer(contender: str) -> str:
    """The name of a peer without its work."""
    return contender.partition(", ")[2]


def _place(comparison: Report) -> tuple[str, str, str]:
    return named(comparison["encoder"]), comparison["work"], named(comparison["instructions"])


def _goals(report: Report) -> Iterator[tuple[object, ...]]:
    for found in report["comparisons"]:
        for goal in found["goals"]:
            limits = (f"{goal['required']:g}", f"{goal['target']:g}")
            yield (*_place(found), peer(goal["peer"]), f"{goal['ratio']:.1f}", *limits)


def _cells(report: Report) -> Iterator[tuple[object, ...]]:
    for found in report["comparisons"]:
        speed = f"{found['rows_per_second']:,.0f} rows/s"
        if "latency_ms" in found:
            speed = f"{found['latency_ms']:.2f} ms"
        rate = f"{found['gflops']:.3g} ({found['share']:.0%} of {found['precision']})" if "gflops" in found else "–"
        best = ("–", "–") if found["ratio"] is None else (peer(found["best_peer"]), f"{found['ratio']:.1f}")
        yield (*_place(found), speed, rate, *best, f"{found['peak_bytes'] / 2**20:,.0f} MiB")


def _options(report: Report) -> Iterator[tuple[object, ...]]:
    for found in report["comparisons"]:
        for name, ratio in found["variants"].items():
            yield (*_place(found), peer(name).removeprefix("loralet, "), f"{ratio:.2f}")


def _rates(report: Report) -> list[tuple[object, ...]]:
    return [(named(name), f"{rates['fp32']:,.0f}", f"{rates['bf16']:,.0f}") for name, rates in report["rates"].items()]
