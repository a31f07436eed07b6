"""The data check before a training: what is read, and what is likely wrong with it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from loralet.data.sources import Dataset, Origin, Split
from loralet.data.splits import copies, separable
from loralet.errors import SHOWN_ROWS, DataError
from loralet.tasks.labels import label_key
from loralet.terminal import shown_label

SHOWN_CLASSES, SHOWN_GROUPS = 8, 5
LISTED_ROWS = 10
"""Rows that the error of ``--strict`` lists for each finding."""
ALIKE, RARE, LONG_NAME = 0.85, 0.05, 5
"""A label of at least ``LONG_NAME`` letters whose spelling has this similarity (difflib) to that of a label with at
least 1 / ``RARE`` times its rows is taken for a typo."""
ABSENT = frozenset(("nan", "none", "null", "na", "n/a", "#n/a", "-", "?", "undefined", "unknown", "missing"))
"""Labels that usually stand for a missing one."""
CONTAMINATED = "no class has two different texts, so validation rows are copies of training rows"
JOINTS = "|;,+/&"
"""Characters that join several labels in one cell."""
AROUND = "[](){}'\" "
"""Characters around them, as in ``['a', 'b']``."""


@dataclass(frozen=True)
class Finding:
    """Something that is likely wrong.

    Args:
        text: what it is, for a number of rows to list.
    """

    text: Callable[[int], str]

    @classmethod
    def of(cls, text: str) -> Finding:
        """A finding that lists no rows."""
        return cls(lambda _: text)


@dataclass(frozen=True)
class DataCheck:
    """The training rows of a data set, and what is likely wrong with them.

    Args:
        source: the data set.
        summary: rows and classes, in one line.
        findings: what is likely wrong; empty if nothing is.
    """

    source: str
    summary: str
    findings: tuple[Finding, ...]

    @property
    def lines(self) -> list[str]:
        """The summary and the findings, one line each."""
        return [self.summary, *(finding.text(SHOWN_ROWS) for finding in self.findings)]

    def require_clean(self) -> None:
        """Check that nothing was found.

        Raises:
            DataError: something was; the message lists all findings with their first rows.
        """
        if self.findings:
            count = len(self.findings)
            title = f"{self.source}: the data check found {count} problem{'s' if count > 1 else ''} (--strict):"
            raise DataError("\n".join([title, *(f"  - {finding.text(LISTED_ROWS)}" for finding in self.findings)]))


def check_data(dataset: Dataset) -> DataCheck:
    """Check the training rows of a data set, before a validation part is held out."""
    train, labels = dataset.train, dataset.task.labels
    findings = [Finding.of(text) for text in dataset.findings]
    if train.targets.dtype != np.int64 or train.targets.ndim != 1:  # a task without classes
        return DataCheck(dataset.source, f"{len(train):,} training rows", tuple(findings))
    counts = np.bincount(train.targets, minlength=len(labels)).tolist()
    findings += _repeated(train, carved=dataset.validation is None)
    findings += _misspelled(train, labels, counts)
    findings += map(Finding.of, _labels(labels, counts))
    findings += _wordless(train)
    findings += _headers(dataset)
    return DataCheck(dataset.source, _summary(len(train), labels, counts), tuple(findings))


def _summary(rows: int, labels: Sequence[str], counts: Sequence[int]) -> str:
    ranked = sorted(zip(labels, counts, strict=True), key=lambda pair: -pair[1])
    listed = ", ".join(f"{shown_label(name)} {count:,}" for name, count in ranked[:SHOWN_CLASSES])
    if len(ranked) > SHOWN_CLASSES:
        listed += f", {len(ranked) - SHOWN_CLASSES} more, the smallest {shown_label(ranked[-1][0])} {ranked[-1][1]:,}"
    return f"{rows:,} training rows in {len(labels):,} classes: {listed}"


def _repeated(split: Split, carved: bool) -> Iterator[Finding]:
    """Copies of texts, and copies with different labels."""
    groups = copies(split.texts, split.seconds)
    first = np.unique(groups, return_index=True)[1]
    again = np.flatnonzero(first[groups] != np.arange(len(groups)))
    if not len(again):
        return
    conflicting = np.unique(groups[split.targets != split.targets[first][groups]])
    kept = ""
    if carved:
        apart = separable(split.targets, groups)
        kept = f"; {'all copies of a text are held out together' if apart else CONTAMINATED}"
    yield _rows_finding(
        split.places, again, "repeat the text of an earlier row", "repeats the text of an earlier row", kept
    )
    if len(conflicting):
        several = np.flatnonzero(np.isin(groups, conflicting))
        yield _rows_finding(split.places, several, "have the same text as another row, with another label", "", "")


def _rows_finding(places: Origin, rows: np.ndarray, several: str, one: str, end: str) -> Finding:
    chosen = rows.tolist()
    return Finding(lambda shown: f"{places.listed(chosen, shown)} {several if len(chosen) > 1 else one}{end}")


def _wordless(split: Split) -> Iterator[Finding]:
    """Texts without a letter, in any script."""
    rows = [i for i, text in enumerate(split.texts.to_pylist()) if not any(map(str.isalpha, text))]
    if rows:
        yield _rows_finding(
            split.places, np.array(rows), "have texts without a letter", "has a text without a letter", ""
        )


def _headers(dataset: Dataset) -> Iterator[Finding]:
    """Rows that repeat the header, as files have that were appended to each other."""
    train, names = dataset.train, [name.strip().lower() for name in dataset.task.labels]
    own = dataset.label_column.strip().lower()
    if own and own in names:
        header = " ".join(dataset.text_columns).lower().split()
        targets = [i for i, name in enumerate(names) if name == own]
        candidates = np.flatnonzero(np.isin(train.targets, targets)).tolist()
        rows = [i for i in candidates if train.texts[i].as_py().lower().split() == header]
        if rows:
            yield _rows_finding(train.places, np.array(rows), "repeat the header", "repeats the header", "")


def _misspelled(split: Split, labels: Sequence[str], counts: Sequence[int]) -> Iterator[Finding]:
    """Labels that may be one, with the rows of all but the most frequent one."""
    rows = dict(zip(labels, counts, strict=True))
    alike = near_equal({name: count for name, count in rows.items() if count})
    if alike:
        groups = [" / ".join(f"{shown_label(name)} {rows[name]:,}" for name in group) for group in alike]
        more = f" and {len(groups) - SHOWN_GROUPS} more" if len(groups) > SHOWN_GROUPS else ""
        title = f"labels that may be one: {', '.join(groups[:SHOWN_GROUPS])}{more}"
        odd = [labels.index(name) for group in alike for name in group[1:]]
        chosen, places = np.flatnonzero(np.isin(split.targets, odd)).tolist(), split.places
        yield Finding(lambda shown: f"{title}; see {places.listed(chosen, shown)}")


def _labels(labels: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    """What is odd about the names and numbers of rows of the classes."""
    rows = dict(zip(labels, counts, strict=True))
    absent = [name for name in labels if name.strip().lower() in ABSENT and rows[name]]
    if absent:
        listed = ", ".join(f"{name!r} ({rows[name]:,} rows)" for name in absent)
        yield f"labels that may stand for a missing one: {listed}"
    joined = combinations(labels)
    if joined:
        yield (
            f"{len(joined):,} of {len(labels):,} labels look like several labels in one ({joined[0]!r}, ...); each is "
            "trained as a class of its own"
        )
    single = [name for name in labels if rows[name] == 1]
    if single:
        listed = ", ".join(map(shown_label, single[:SHOWN_GROUPS])) + (", ..." if len(single) > SHOWN_GROUPS else "")
        count = f"{len(single):,} class{'es have' if len(single) > 1 else ' has'}"
        yield f"{count} one row, which cannot be validated: {listed}"


def near_equal(rows: dict[str, int]) -> list[list[str]]:
    """Groups of labels that may be one, the most frequent first.

    They are equal by value, in case, spaces, invisible characters or Unicode form; or one of them has few rows and is
    spelled like a frequent one.

    Args:
        rows: number of rows by label.
    """
    groups: dict[object, list[str]] = defaultdict(list)
    for name in sorted(rows, key=lambda name: -rows[name]):
        groups[_folded(name)].append(name)
    names = list(groups.values())
    for group in sorted(names, key=lambda group: rows[group[0]]):
        others = (other for other in names if other and other is not group)
        other = next((other for other in others if _is_typo(group[0], other[0], rows)), None)
        if other is not None:
            other.extend(group)
            group.clear()
    return [group for group in names if len(group) > 1]


def _folded(name: str) -> object:
    text = unicodedata.normalize("NFKC", name).casefold()
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())
    key = label_key(re.sub(r"[\s_-]+", " ", text).strip())
    return label_key(name) if label_key(name)[0] != "name" else key  # type: ignore[index]  # keys are pairs


def _is_typo(name: str, other: str, rows: dict[str, int]) -> bool:
    if min(len(name), len(other)) < LONG_NAME or rows[name] > RARE * rows[other]:
        return False
    a, b = name.casefold(), other.casefold()
    if re.sub(r"[0-9]", "", a) == re.sub(r"[0-9]", "", b):  # numbered classes
        return False
    return SequenceMatcher(None, a, b).ratio() >= ALIKE


def combinations(labels: Iterable[str]) -> list[str]:
    """Labels that join parts which occur in other labels, such as ``a|b`` and ``b|c``, or ``[0, 1]`` and ``[1]``."""
    found: list[str] = []
    for joint in JOINTS:
        parts = {name: [part.strip(AROUND) for part in name.split(joint)] for name in labels}
        seen = Counter(part for own in parts.values() for part in set(own))
        joined = [
            name for name, own in parts.items() if len(own) > 1 and all(own) and all(seen[part] > 1 for part in own)
        ]
        found = max(found, joined, key=len)
    return found
