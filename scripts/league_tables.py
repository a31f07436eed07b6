"""Markdown of the benchmarks on data sets of many kinds: all rows, and few labels per class."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from markdown_tables import Report, source, table

LEAGUE = """\
Test accuracy on data sets of many kinds, with the options of `loralet train` left at their defaults of the commit below
(today's may be newer): means over {seeds}. ↑ and ↓: better and worse than the linear model on words on the same
test rows, p < {level} by {method}.

"""
SUMMARY = """\
Means over the sets. Better and worse count the arrows above. ECE is the expected calibration error. Seconds are those
from reading the data to the last prediction.{note}

"""
ERRORS = """\
`loralet check` on up to {rows:,} rows of each set, {share:.0%} of whose labels were replaced by other ones at random.
Precision: share of the suspected rows whose label was replaced; labels that were wrong before count against it. First:
the same for the clearest suspects, as many as there are replaced labels. Recall: share of the replaced labels that are
suspected. Accuracy is the out-of-fold accuracy on the labels with errors.

"""
FEW = """\
Mean test accuracy on {sets} after training on a few rows of each class, over {draws} draws of these rows. Options of
`loralet train` as above; the penalty of logistic regression is chosen by cross-validation. Standard deviations over the
draws, averaged over the sets, in parentheses.

"""
WORDS, FROZEN = "TF-IDF + linear SVM", "frozen MiniLM + logistic regression"
LEVEL = 0.05
"""p below which a difference has an arrow."""


def league(report: Report) -> str:
    """The section of the league, without its heading."""
    words, *others = report["rows"]
    assert words == WORDS
    lines = [
        (name.replace("_", " "), *(_accuracy(report["rows"][classifier][name]) for classifier in report["rows"]))
        for name in report["rows"][words]
    ]
    methods = {row["over_words"]["method"] for other in others for row in report["rows"][other].values()}
    text = LEAGUE.format(seeds=_seeds(report, others), method=" or ".join(sorted(methods)), level=LEVEL)
    text += source("league", report)
    note = f"\n{report['note']}" if report.get("note") else ""
    means = [_means(report, name) for name in report["rows"]]
    head = ("classifier", "accuracy", "difference to words", "better", "worse", "ECE", "seconds")
    return "\n".join([text, table(("data", *report["rows"]), lines), SUMMARY.format(note=note) + table(head, means)])


def league_means(report: Report) -> tuple[object, ...]:
    """The README's row of the league: the mean accuracy of each classifier, without the encoders of hybrids alone."""
    names = [name for name in report["rows"] if "encoder alone" not in name]
    means = [f"{fmean(row['test'] for row in report['rows'][name].values()):.1%}" for name in names]
    return f"mean test accuracy on {len(report['rows'][WORDS])} data sets: {', '.join(names)}", ", ".join(means)


def _seeds(report: Report, classifiers: Sequence[str]) -> str:
    """Example: 3 seeds (small-en: 1). Frozen embeddings have no seed."""
    counts = {name: max(len(row["test_seeds"]) for row in report["rows"][name].values()) for name in classifiers}
    most = max(counts.values())
    fewer = [f"{name}: {count}" for name, count in counts.items() if count < most and name != FROZEN]
    return f"{most} seeds" + (f" ({'; '.join(fewer)})" if fewer else "")


def _accuracy(row: Report) -> str:
    over = row.get("over_words")
    arrow = "" if over is None or over["p"] >= LEVEL else " ↑" if over["difference"] > 0 else " ↓"
    return f"{row['test']:.1%}{arrow}"


def _means(report: Report, name: str) -> tuple[object, ...]:
    rows = report["rows"][name].values()
    accuracy, words = (fmean(row["test"] for row in report["rows"][other].values()) for other in (name, WORDS))
    compared = [row["over_words"] for row in rows if "over_words" in row and row["over_words"]["p"] < LEVEL]
    errors = [row["ece"] for row in rows if row.get("ece") is not None]
    seconds = f"{fmean(row['seconds'] for row in rows):.0f}"
    if name == WORDS:
        return name, f"{accuracy:.1%}", "–", "–", "–", "–", seconds
    better = sum(over["difference"] > 0 for over in compared)
    ece = f"{fmean(errors):.3f}" if errors else "–"
    difference = f"{100 * (accuracy - words):+.1f} points"
    return name, f"{accuracy:.1%}", difference, better, len(compared) - better, ece, seconds


def label_errors(report: Report) -> str:
    """The section of label errors, without its heading."""
    keys = ("accuracy", "precision", "first", "recall")
    sets = report["sets"]
    lines = [(name.replace("_", " "), *(f"{row[key]:.0%}" for key in keys)) for name, row in sets.items()]
    lines.append(("mean", *(f"{fmean(row[key] for row in sets.values()):.0%}" for key in keys)))
    text = ERRORS.format(rows=max(row["rows"] for row in sets.values()), share=report["share"])
    return "\n".join([text + source("label_errors", report), table(("data", *keys), lines)])


def few_labels(report: Report) -> str:
    """The section of few labels per class, without its heading."""
    labels = list(report["labels"])
    by_classifier = report["labels"][labels[0]]
    sets = next(iter(by_classifier.values()))
    lines = [(name, *(_mean(report["labels"][count][name]) for count in labels)) for name in by_classifier]
    text = FEW.format(sets=", ".join(name.replace("_", " ") for name in sets), draws=report["draws"])
    head = ("classifier", *(f"{count} per class" for count in labels))
    by_set = [
        (
            f"{name}, {count} per class".replace("_", " "),
            *(f"{report['labels'][count][classifier][name]['test']:.1%}" for classifier in by_classifier),
        )
        for name in sets
        for count in labels
    ]
    return "\n".join([text + source("few_labels", report), table(head, lines), table(("data", *by_classifier), by_set)])


def _mean(by_set: Report) -> str:
    rows = by_set.values()
    spread = fmean(row["test_sd"] or 0 for row in rows)
    return f"{fmean(row['test'] for row in rows):.1%} ({spread:.1%})"
