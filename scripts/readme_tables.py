"""Writes the README's tables from the benchmarks' JSON; with --check only says whether they are fresh.

python scripts/readme_tables.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
NAMES = {
    "majority": "majority class",
    "random-head": "random head (chance)",
    "tfidf-svm": "TF-IDF + linear SVM",
    "linear-probe": "linear probe",
}


def machine(report: dict[str, Any]) -> str:
    m = report["machine"]
    return f"{m['cores']} cores of {m['processor']}{' with bf16' if m['bf16'] else ''}, torch {m['torch']}, commit {m['commit']}"


def accuracy(report: dict[str, Any], model: str = "a distilled 2 x 128 BERT") -> str:
    data = report["data"]
    lines = [
        f"AG News, {data['train_rows']:,} training rows, the official {data['test_rows']:,} test rows, {model}",
        f"([benchmarks/accuracy.py](benchmarks/accuracy.py); {machine(report)}); three seeds of each side by side, the seconds one's share:",
        "",
        "| three epochs | test accuracy, mean (95 % interval) | over seeds | trained parameters | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        test, took = row["test"], row["train_seconds"]
        shown = f"{took:,.0f}" if took is not None else "–"
        interval = f"{test['accuracy']:.2%} ({test['accuracy_low']:.1%} – {test['accuracy_high']:.1%})"
        spread = "–" if test["sd"] is None else f"± {100 * test['sd']:.2f} points"
        lines.append(
            f"| {NAMES.get(row['name'], row['name'])} | {interval} | {spread} | {row['trainable_parameters']:,} | {shown} |"
        )
    pack = report["pack"]
    lines += ["", f"Nine configurations, {pack['steps']} steps each: {pack['pack_seconds']:.0f} s as one pack, {pack['single_seconds']:.0f} s singly "
              f"({pack['ratio']:.1f} times)."]  # fmt: skip
    return "\n".join(lines)


def news_tiny(report: dict[str, Any]) -> str:
    return accuracy(report, "the bundled news-tiny")


def speed(report: dict[str, Any]) -> str:
    lines = [
        f"Speed, each contender in a process of its own, in turn, median of {report['rounds']} rounds",
        f"([benchmarks/speed.py](benchmarks/speed.py); {machine(report)}):",
        "",
        "| who | rows/s | peak memory |",
        "|---|---|---|",
    ]
    rows = {name: row for name, row in report["rows"].items() if "accuracy" not in row}
    lines += [
        f"| {name} | {row['rows_per_second']:,.0f} | {row['peak_bytes'] / 2**20:,.0f} MiB |"
        for name, row in rows.items()
    ]
    lines += ["", "| ratio | times |", "|---|---|"]
    lines += [f"| {ratio['what']} | {ratio['ratio']:.1f} |" for ratio in report["ratios"]]
    lines += ["", "| time to an accuracy on validation | accuracy | seconds |", "|---|---|---|"]
    lines += [
        f"| {name} | {row['accuracy']:.1%} | {row['seconds']:.1f} |"
        for name, row in report["rows"].items()
        if "accuracy" in row
    ]
    return "\n".join(lines)


def start_up(report: dict[str, Any]) -> str:
    tokens, once, growth = report["tokenising"], report["tokenising_once"], report["growth"]
    return "\n".join(
        [
            f"Waiting ([benchmarks/start_up.py](benchmarks/start_up.py); {machine(report)}):",
            "",
            "| what | seconds |",
            "|---|---|",
            f"| `loralet --help` | {report['help_seconds']:.2f} |",
            f'| `loralet predict RUN "one text"`, from a cold start | {report["predict_seconds"]:.2f} |',
            f"| tokenising {once['rows']:,} rows; the library on whole texts | {once['first_seconds']:.2f}; {once['library_seconds']:.2f} |",
            f"| the same rows repeated to {tokens['rows']:,} | {tokens['first_seconds']:.2f}; {tokens['library_seconds']:.2f} |",
            f"| these from the cache | {tokens['cached_seconds']:.2f} |",
            *(
                f"| one epoch of {g['rows']:,} rows (peak memory {g['peak_bytes'] / 2**20:,.0f} MiB) | {g['seconds']:.1f} |"
                for g in growth
            ),
            *(f"| {g['tokens']:,} tokens in rows of {g['length']} | {g['seconds']:.1f} |" for g in report["by_length"]),
        ]
    )


def defaults(report: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, report["seeds"]))
    lines = [
        f"Does accuracy pay for speed? r16 alpha 64 on query and value, lr 3e-3, no weight decay, {report['epochs']:g} epochs, seeds {seeds}",
        f"([benchmarks/defaults.py](benchmarks/defaults.py); {machine(report)}); each row but the last adds to the row above it:",
        "",
        "| how it is trained | test accuracy, mean | standard deviation |",
        "|---|---|---|",
    ]
    spread = [f"{100 * row['sd']:.2f} points" if row["sd"] is not None else "–" for row in report["rows"]]
    return "\n".join(
        lines
        + [f"| {row['name']} | {row['mean']:.2%} | {sd} |" for row, sd in zip(report["rows"], spread, strict=True)]
    )


def render(readme: str) -> str:
    """The README with every table made anew from the JSON that is there."""
    for name, make in (
        ("accuracy", accuracy),
        ("news_tiny", news_tiny),
        ("speed", speed),
        ("start_up", start_up),
        ("defaults", defaults),
    ):
        path = BENCHMARKS / f"{name}.json"
        table = make(json.loads(path.read_text(encoding="utf-8"))) + "\n" if path.exists() else ""
        marks = re.compile(f"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        readme = marks.sub(lambda m, table=table: m[1] + table + m[2], readme)  # type: ignore[misc]
    return readme


def main() -> int:
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = render(before)
    if "--check" in sys.argv:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
