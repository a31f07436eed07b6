"""Write docs/benchmarks.md and the README's table of results from the benchmarks' JSON.

    python scripts/benchmark_tables.py [--check]

With --check nothing is written; the exit status is 1 if a file is not what would be written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
ROLES = {
    "majority": "majority class",
    "random-head": "random head (chance)",
    "tfidf-svm": "TF-IDF + linear SVM",
    "linear-probe": "linear probe",
}
SHOWN_ROWS = {
    "majority": "the majority class",
    "tfidf-svm": "TF-IDF + linear SVM",
    "the original recipe": "the original recipe (lr 5e-5, dropout 0.1, no weight decay)",
    "default: ": "the default configuration",
}
"""Rows of the accuracy benchmark that the README shows, by the beginning of their names, and what it calls them."""
SHOWN_RATIOS = {
    "one run, dropout 0.1, against Trainer + PEFT, dynamic padding": "one run, dropout 0.1, against Trainer + PEFT",
    "nine runs with checks against Trainer + PEFT, dynamic padding, nine times": (
        "nine runs in one pack, no dropout, against nine runs of Trainer + PEFT, dropout 0.1"
    ),
    "texts to labels against the transformers pipeline": "prediction against the transformers pipeline",
}
"""Ratios of the speed benchmark that the README shows, and what it calls them."""

Report = Mapping[str, Any]
"""A benchmark's JSON."""

INTRODUCTION = """\
<!-- Written by scripts/benchmark_tables.py from benchmarks/*.json; edit those, not this file. -->

# Benchmarks

`make bench DATA=FOLDER MODEL=FOLDER` runs all of them, in about an hour, and writes this page. `DATA` has train and
test files, `MODEL` is a backbone of 2 layers, 128 wide. Every section names its machine and commit.

The backbones, the bundled news-tiny and an earlier one of the same form, were distilled on AG News texts without their
labels: training rows, and descriptions without titles, 57 of which belong to rows of the test split.
"""

SPEED = """\
Each contender has its own process; in every round each of them runs once, in turn. The figures are medians of {rounds}
rounds of {steps} steps, start-up not counted. Unless its name says otherwise, a contender trains r16 alpha 64 on query
and value in batches of 32.

* *Trainer + PEFT* has dropout 0.1 on the adapters; loralet has none, its default, except where the name says so.
* The peers compute in fp32 except where the name says bf16; loralet in {machine[dtype]} except where it says fp32.
* *Dynamic padding*: texts of similar length share a batch, which is padded to its longest text.
* A pack of nine trains nine configurations side by side; its rows are counted once per run.

"""

START_UP = """\
Wall time of commands, of tokenising, and of one epoch with more and with longer rows.

"""

DEFAULTS = """\
Do the settings that make training fast cost accuracy? r16 alpha 64 on query and value, lr 3e-3, no weight decay,
{epochs:g} epochs, seeds {seeds}. Each row but the last adds one change to the row above it.

"""

COMPARING = """\
## Two versions on one machine

`python benchmarks/compare.py BASE_CHECKOUT DATA MODEL` runs the contenders of this checkout and of another one in turn,
prints the ratio of their medians for each kind of work, and exits with status 1 if one is slower by more than 3 %.
"""


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def machine(report: Report) -> str:
    """What a report was measured on, in one line."""
    found = report["machine"]
    parts = [f"{found['cores']} cores of {found['cpu']}", found.get("instructions"), found.get("gpu"), found["dtype"]]
    parts += [f"torch {found['torch']}", f"commit {found['commit']}"]
    return ", ".join(part for part in parts if part)


def source(name: str, report: Report) -> str:
    """The line that says where a table comes from."""
    return f"Measured by `benchmarks/{name}.py` on {machine(report)}.\n"


def interval(row: Report) -> str:
    """Test accuracy with its 95 % interval."""
    test = row["test"]
    return f"{test['accuracy']:.2%} ({test['accuracy_low']:.1%} – {test['accuracy_high']:.1%})"


def accuracy(report: Report, model: str) -> str:
    """A section of the accuracy benchmark, without its heading."""
    data, pack = report["data"], report["pack"]
    rows = []
    for row in report["rows"]:
        spread, seconds = row["test"]["sd"], row["train_seconds"]
        rows.append(
            (
                ROLES.get(row["name"], row["name"]),
                interval(row),
                "–" if spread is None else f"± {100 * spread:.2f} points",
                f"{row['trainable_parameters']:,}",
                "–" if seconds is None else f"{seconds:,.0f}",
            )
        )
    head = (
        "configuration",
        "test accuracy, mean (95 % interval)",
        "over seeds",
        "trained parameters",
        "seconds per run",
    )
    return "\n".join(
        [
            f"AG News, {data['train_rows']:,} training rows, the official {data['test_rows']:,} test rows, {model}, "
            f"{report['epochs']:g} epochs.\nThree seeds of a configuration, one after another; seconds of one run.\n",
            source("accuracy", report),
            table(head, rows),
            f"Nine configurations, {pack['steps']} steps each: {pack['pack_seconds']:.0f} s as one pack, "
            f"{pack['single_seconds']:.0f} s as single runs ({pack['ratio']:.1f} times as long).\n",
        ]
    )


def speed(report: Report) -> str:
    """The section of the speed benchmark, without its heading."""
    rows = report["rows"].items()
    contenders = [
        (name, f"{row['rows_per_second']:,.0f}", f"{row['peak_bytes'] / 2**20:,.0f} MiB")
        for name, row in rows
        if "accuracy" not in row
    ]
    ratios = [(ratio["name"], f"{ratio['ratio']:.1f}") for ratio in report["ratios"]]
    times = [(name, f"{row['accuracy']:.1%}", f"{row['seconds']:.1f}") for name, row in rows if "accuracy" in row]
    return "\n".join(
        [
            SPEED.format(**report) + source("speed", report),
            table(("contender", "rows/s", "peak memory"), contenders),
            table(("ratio", "times"), ratios),
            table(("time to an accuracy", "accuracy on all validation rows", "seconds"), times),
        ]
    )


def start_up(report: Report) -> str:
    """The section of the start-up benchmark, without its heading."""
    many, once = report["tokenising"], report["tokenising_once"]
    library = "tokenising {rows:,} rows, whole texts by the tokenizers library"
    rows: list[tuple[object, ...]] = [
        ("`loralet --help`", f"{report['help_seconds']:.2f}"),
        ('`loralet predict RUN "one text"`, from a cold start', f"{report['predict_seconds']:.2f}"),
        (f"tokenising {once['rows']:,} rows", f"{once['first_seconds']:.2f}"),
        (library.format(**once), f"{once['library_seconds']:.2f}"),
        (f"tokenising {many['rows']:,} rows (the same texts repeated)", f"{many['first_seconds']:.2f}"),
        (library.format(**many), f"{many['library_seconds']:.2f}"),
        (f"{many['rows']:,} rows from the cache", f"{many['cached_seconds']:.2f}"),
    ]
    for epoch in report["growth"]:
        memory = f"{epoch['peak_bytes'] / 2**20:,.0f} MiB"
        rows.append((f"one epoch of {epoch['rows']:,} rows (peak memory {memory})", f"{epoch['seconds']:.1f}"))
    rows += [
        (f"{epoch['tokens']:,} tokens in rows of {epoch['length']} tokens", f"{epoch['seconds']:.1f}")
        for epoch in report["by_length"]
    ]
    return "\n".join([START_UP + source("start_up", report), table(("work", "seconds"), rows)])


def defaults(report: Report) -> str:
    """The section of the benchmark of the defaults, without its heading."""
    seeds = ", ".join(map(str, report["seeds"]))
    rows = [
        (row["name"], f"{row['mean']:.2%}", "–" if row["sd"] is None else f"{100 * row['sd']:.2f} points")
        for row in report["rows"]
    ]
    text = DEFAULTS.format(epochs=report["epochs"], seeds=seeds) + source("defaults", report)
    return "\n".join([text, table(("training", "test accuracy, mean", "standard deviation"), rows)])


SECTIONS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "news_tiny": ("Accuracy, news-tiny", lambda report: accuracy(report, "the bundled news-tiny")),
    "accuracy": ("Accuracy, earlier backbone", lambda report: accuracy(report, "the earlier backbone")),
    "speed": ("Speed", speed),
    "start_up": ("Start-up, and growth with the rows", start_up),
    "defaults": ("Accuracy of the fast defaults", defaults),
}
"""Heading and text of each section, by the JSON file's name."""


def results(news_tiny: Report, fast: Report) -> str:
    """The README's table."""
    data = news_tiny["data"]
    rows: list[tuple[object, ...]] = []
    for start, shown in SHOWN_ROWS.items():
        row = next(row for row in news_tiny["rows"] if row["name"].startswith(start))
        rows.append((f"test accuracy of {shown}", interval(row)))
    ratios = {ratio["name"]: ratio["ratio"] for ratio in fast["ratios"]}
    rows += [(f"speed of {shown}", f"{ratios[name]:.1f} times") for name, shown in SHOWN_RATIOS.items()]
    return "\n".join(
        [
            f"AG News, {data['train_rows']:,} training rows, the official {data['test_rows']:,} test rows, "
            f"{news_tiny['epochs']:g} epochs, mean of three seeds with its 95 % interval.",
            "Backbone: the bundled news-tiny; for the speed another of the same form, on "
            f"{fast['machine']['cores']} cores of {fast['machine']['cpu']}.",
            "All tables and how they were measured: [docs/benchmarks.md](docs/benchmarks.md).",
            "",
            table(("AG News", "measured"), rows),
        ]
    )


def load(name: str) -> Report:
    """A benchmark's JSON."""
    report: Report = json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))
    return report


def page() -> str:
    """docs/benchmarks.md."""
    sections = [f"## {heading}\n\n{text(load(name))}" for name, (heading, text) in SECTIONS.items()]
    return "\n".join([INTRODUCTION, *sections, COMPARING])


def readme(before: str) -> str:
    """The README with its table of results written anew."""
    own = results(load("news_tiny"), load("speed"))
    marks = re.compile("(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)
    return marks.sub(lambda found: found[1] + own + found[2], before)


def main() -> int:
    """Write both files, or check them."""
    path = ROOT / "README.md"
    wanted = {path: readme(path.read_text(encoding="utf-8")), ROOT / "docs" / "benchmarks.md": page()}
    stale = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for p in stale:
            print(f"{p.relative_to(ROOT)} is not up to date; run: python scripts/benchmark_tables.py", file=sys.stderr)
        return int(bool(stale))
    for p in stale:
        p.write_text(wanted[p], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
