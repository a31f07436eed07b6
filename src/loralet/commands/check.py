"""``loralet check``: find wrong labels, copies and near copies in a data set, and list them in a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.atomic import new_file
from loralet.config import CheckConfig, Interface
from loralet.errors import ConfigError
from loralet.progress.view import open_view
from loralet.report.results_table import table_console
from loralet.runtime import using_threads
from loralet.studies.checking import Checked, RowFinding, check_rows
from loralet.terminal import shown_label, visible

SHOWN = 10
"""Findings on the terminal."""
LONGEST_HEAD = 1000
"""Bytes of an existing file that are read, to see whether it is a list of findings."""
HEAD = (
    "file", "row", "finding", "text", "label", "suggested_label", "label_probability", "suggested_probability",
    "other_row", "other_label", "other_text", "similarity",
)  # fmt: skip


def check(config: CheckConfig, interface: Interface) -> None:
    """Check the training rows of a data set, print the clearest findings and write all of them.

    Raises:
        DataError: the data cannot be read, or have a validation split.
        ConfigError: the data are not single-label classes, or the findings cannot be written there.
    """
    _require_free(Path(config.out))
    with using_threads(config.compute.threads), open_view(interface.quiet, interface.json_events) as view:
        found = check_rows(config, view)
    with new_file(Path(config.out)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerows(_cells(finding, found) for finding in found.findings)
    if not interface.json_events:
        table_console().print(_shown(found, config))


def _require_free(out: Path) -> None:
    """Check the path of the findings before the work. Only older findings are overwritten.

    Raises:
        ConfigError: it is a folder, another file, or within a file.
    """
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder; give a file name with --out")
    if out.exists():
        with out.open("rb") as file:
            if file.readline(LONGEST_HEAD).strip() != ",".join(HEAD).encode():
                raise ConfigError(f"{out}: exists and is no list of findings, so it is not overwritten; set --out")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ConfigError(f"{out}: cannot be created, as {above} is a file; set --out")


def _cells(finding: RowFinding, found: Checked) -> Iterator[object]:
    """The cells of a finding in the CSV file."""
    places, texts = found.train.places, found.train.texts
    targets, other = found.train.targets, finding.other
    yield places.files[places.file[finding.row]]
    yield int(places.rows[finding.row])
    yield finding.kind
    yield texts[finding.row].as_py()
    yield found.labels[targets[finding.row]]
    yield finding.suggestion
    for value in (finding.given_probability, finding.suggested_probability):
        yield "" if value is None else f"{value:.4f}"
    yield "" if other is None else int(places.rows[other])
    yield "" if other is None else found.labels[targets[other]]
    yield "" if other is None else texts[other].as_py()
    yield "" if finding.similarity is None else f"{finding.similarity:.3f}"


def _shown(found: Checked, config: CheckConfig) -> RenderableType:
    """Numbers of the findings, and the rows whose label is most likely wrong."""
    counts = Counter[str](finding.kind for finding in found.findings)
    names = {
        "spelling": "rows whose label may be another spelling of a more frequent one",
        "label": "rows whose label is likely wrong",
        "conflict": "rows with the text of another row and another label",
        "copy": "copies of earlier rows",
        "near copy": "near copies of earlier rows",
    }
    rows = len(found.train)
    lines = [f"{counts[kind]:,} {text} ({100 * counts[kind] / rows:.1f} %)" for kind, text in names.items()]
    title = f"{rows:,} rows; out-of-fold accuracy {found.accuracy:.4f} over {config.folds} folds"
    parts: list[RenderableType] = [Text("\n".join([title, *lines]))]
    suspects = [finding for finding in found.findings if finding.kind == "label"][:SHOWN]
    if suspects:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        table.add_column(found.train.places.unit, justify="right")
        for name in ("label", "suggested", "text"):
            table.add_column(name, overflow="ellipsis", no_wrap=name == "text")
        for finding in suspects:
            labels = (found.labels[found.train.targets[finding.row]], finding.suggestion)
            text = " ".join(found.train.texts[finding.row].as_py().split())
            number = f"{found.train.places.rows[finding.row]:,}"
            table.add_row(number, *(Text(shown_label(value)) for value in labels), Text(visible(text)))
        parts.append(table)
    parts.append(Text(f"all findings: {config.out}"))
    return Group(*parts)
