"""Markdown of the league benchmark: accuracy on data sets of many kinds."""

from __future__ import annotations

from markdown_tables import Report, source, table

LEAGUE = """\
Test accuracy on data sets of many kinds, with the options of `loralet train` left at their defaults of the commit below
(today's may be newer): means over {seeds} seeds. The difference is to the linear model on words, on the same test rows;
p is that of {method}. Seconds are those from reading the data to the last prediction.

"""
WORDS = "TF-IDF + linear SVM"


def league(report: Report) -> str:
    """The section of the league, without its heading."""
    words, *others = report["rows"]
    assert words == WORDS
    baseline = report["rows"][words]
    head = ["data", WORDS, *(name for other in others for name in (other, "difference", "p", "seconds"))]
    lines: list[tuple[object, ...]] = []
    for name, row in baseline.items():
        line: list[object] = [name.replace("_", " "), f"{row['test']:.1%}"]
        for other in others:
            own = report["rows"][other][name]
            points, p = 100 * (own["test"] - row["test"]), own["over_words"]["p"]
            line += [f"{own['test']:.1%}", f"{points:+.1f} points", f"{p:.2g}", f"{own['seconds']:.0f}"]
        lines.append(tuple(line))
    means: list[object] = ["mean", f"{_mean(report, words):.1%}"]
    for other in others:
        points = 100 * (_mean(report, other) - _mean(report, words))
        means += [f"{_mean(report, other):.1%}", f"{points:+.1f} points", "", ""]
    seeds = max(len(row["test_seeds"]) for other in others for row in report["rows"][other].values())
    method = next(row["over_words"]["method"] for other in others for row in report["rows"][other].values())
    text = LEAGUE.format(seeds=seeds, method=method) + source("league", report)
    return "\n".join([text, table(tuple(head), [*lines, tuple(means)])])


def _mean(report: Report, name: str) -> float:
    found = [float(row["test"]) for row in report["rows"][name].values()]
    return sum(found) / len(found)
