"""Ours and the peers, each in a process of its own, in turn, several rounds, on the same rows; medians and ratios.

    python benchmarks/speed.py DATA MODEL [--rounds 3] [--steps 150] [--only WORD] [--out benchmarks/speed.json]

Start-up is not counted. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from contenders import CONTENDERS
from machine import describe_machine

from loralet.atomic import write_json

NINE_CHECKED = "loralet, pack of nine with a check every 50 steps (rows x runs)"
RATIOS = [
    ("one run against peer b", "loralet, one run", "peer b: Trainer + PEFT, grouped by length", 4, 7),
    ("one run against peer b in bf16", "loralet, one run", "peer b in bf16", None, None),
    ("one run against peer a", "loralet, one run", "peer a: Trainer + PEFT, padded to 128", 10, 18),
    ("one run against full fine-tuning", "loralet, one run", "peer c: Trainer, full fine-tuning, grouped by length", None, None),
    ("nine runs with checks against peer b nine times", NINE_CHECKED, "peer b with a check every 50 steps", 7, 15),
    ("a pack of nine against nine single runs", "loralet, pack of nine (rows x runs)", "loralet, one run", None, None),
    ("evaluation against peer b", "evaluation, loralet", "evaluation, peer b", 2.5, 5),
    ("texts to labels against the pipeline", "texts to labels, loralet", "texts to labels, transformers pipeline", 5, 10),
    ("texts to labels against ONNX Runtime", "texts to labels, loralet", "texts to labels, ONNX Runtime", None, None),
]  # fmt: skip
OURS = "loralet"


def measure(name: str, arguments: argparse.Namespace, folder: str) -> dict[str, float]:
    """One contender, once. Ours runs as its command does, with threads that wait passively; the peers as theirs do."""
    here = Path(__file__).parent
    environment = os.environ | {"BENCH_FOLDER": folder, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    if OURS in name:
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = [
        sys.executable,
        str(here / "contenders.py"),
        name,
        arguments.data,
        arguments.model,
        "--steps",
        str(arguments.steps),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", default="", help="only contenders whose name has this in it")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    able = {"fasttext": find_spec("fasttext"), "onnx": find_spec("onnxruntime")}
    missing = [word for word, found in able.items() if found is None]
    names = [
        name for name in CONTENDERS if arguments.only in name and not any(word in name.lower() for word in missing)
    ]
    if missing:
        print(f"left out, as not installed: {', '.join(missing)} (pip install -e '.[bench,onnx]')", file=sys.stderr)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(arguments.rounds):
            for name in names:
                results[name].append(measure(name, arguments, folder))
                print(
                    f"round {i + 1}  {name:66} {results[name][-1]['rows_per_second']:9,.0f} rows/s",
                    file=sys.stderr,
                    flush=True,
                )
    rows = {name: {"rows_per_second": median(r["rows_per_second"] for r in rs), "all": [r["rows_per_second"] for r in rs],
                   "seconds": median(r["seconds"] for r in rs), "peak_bytes": max(r["peak_bytes"] for r in rs),
                   **({"accuracy": median(r["accuracy"] for r in rs)} if "accuracy" in rs[0] else {})} for name, rs in results.items()}  # fmt: skip
    ratios = [
        {"what": what, "ratio": rows[a]["rows_per_second"] / rows[b]["rows_per_second"], "must": must, "aim": aim}
        for what, a, b, must, aim in RATIOS
        if a in rows and b in rows
    ]
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "rows": rows,
        "ratios": ratios,
    }
    write_json(Path(arguments.out), report)
    for name, row in rows.items():
        print(f"{name:66} {row['rows_per_second']:9,.0f} rows/s  {row['peak_bytes'] / 2**20:7,.0f} MiB")
    for ratio in ratios:
        print(f"{ratio['what']:66} {ratio['ratio']:9.2f} x  (must {ratio['must'] or '-'}, aim {ratio['aim'] or '-'})")


if __name__ == "__main__":
    main()
