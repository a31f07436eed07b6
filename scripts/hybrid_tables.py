"""Markdown of the hybrid benchmark."""

from __future__ import annotations

from statistics import fmean

from markdown_tables import Report, source, table

HYBRIDS = """\
Test accuracy of a linear model on words (TF-IDF + logistic regression), of a LoRA with the defaults of
`loralet train`, and of both with `--hybrid auto`. At most 8,000 training rows, a tenth of them held out; means over
seeds {seeds}. The weight is that of the LoRA; p is the median over the seeds of McNemar's test between LoRA and hybrid.

"""
SIZES = """\
Validation rows only, seed {seed}, means over the data sets: loss of the hybrid with the best weight and temperature,
accuracy of the linear model and of the hybrid, size of its files.

"""
RULES = """\
When to use the linear model: the weight and the decision come from a random half of the validation rows, the scores
from the other half; means over {halves} halves, the seeds and the data sets.

"""


def hybrid(report: Report) -> str:
    """The section, without its heading."""
    parts = [HYBRIDS.format(seeds=", ".join(map(str, report["seeds"]))) + source("hybrid", report)]
    for model in dict.fromkeys(found["model"] for found in report["sets"]):
        sets = [found for found in report["sets"] if found["model"] == model]
        parts.append(f"Backbone: {model}.\n")
        parts.append(_accuracies(report, model, sets))
    first = [found for found in report["sets"] if found["model"] == report["sets"][0]["model"]]
    parts += [SIZES.format(seed=report["seeds"][0]), _variants(first)]
    return "\n".join([*parts, RULES.format(halves=report["halves"]), _rules(report["sets"])])


def _accuracies(report: Report, model: str, sets: list[Report]) -> str:
    rows: list[tuple[object, ...]] = []
    for found in sets:
        runs = [(run, run["default"]) for run in found["runs"]]
        weight = fmean(default["weight"] if default["pays"] else 1.0 for _, default in runs)
        p = sorted(default["p"] for _, default in runs)[len(runs) // 2]
        accuracies = (
            fmean(default["words_test"]["accuracy"] for _, default in runs),
            fmean(run["lora_test"]["accuracy"] for run, _ in runs),
            fmean(default["auto_test"]["accuracy"] for _, default in runs),
        )
        rows.append(
            (
                found["data"],
                f"{found['rows']['train']:,}",
                found["labels"],
                *(f"{100 * accuracy:.1f}" for accuracy in accuracies),
                f"{weight:.2f}",
                "< 0.001" if p < 0.001 else f"{p:.3f}",
                f"{runs[0][1]['bytes'] / 1e6:.2f}",
            )
        )
    means = report["averages"][model]
    rows.append(
        ("**mean**", "", "", *(f"**{100 * means[name]:.1f}**" for name in ("words", "lora", "hybrid")), "", "", "")
    )
    return table(("data", "rows", "labels", "words", "LoRA", "hybrid", "weight", "p", "MB"), rows)


def _variants(sets: list[Report]) -> str:
    rows: list[tuple[object, ...]] = []
    for name in sets[0]["runs"][0]["variants"]:
        own = [found["runs"][0]["variants"][name] for found in sets]
        rows.append(
            (
                name,
                f"{fmean(cell['loss'] for cell in own):.4f}",
                f"{100 * fmean(cell['words_validation']['accuracy'] for cell in own):.1f}",
                f"{100 * fmean(cell['hybrid_validation']['accuracy'] for cell in own):.1f}",
                f"{fmean(cell['bytes'] for cell in own) / 1e6:.2f}",
            )
        )
    return table(("linear model", "loss", "words", "hybrid", "MB"), rows)


def _rules(sets: list[Report]) -> str:
    halves = [run["default"]["halves"] for found in sets for run in found["runs"]]
    rows = [
        (
            rule,
            f"{100 * fmean(half[rule]['accuracy'] for half in halves):.2f}",
            f"{fmean(half[rule]['loss'] for half in halves):.4f}",
        )
        for rule in halves[0]
    ]
    return table(("linear model used", "accuracy", "loss"), rows)
