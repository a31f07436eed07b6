"""``loralet predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loralet.artifacts.artifact import Artifact
from loralet.commands.backends import announce
from loralet.config import ColumnOptions, PredictConfig, TextInput
from loralet.errors import ConfigError, listed_rows
from loralet.hub.bundled import DATA, FOLDER
from loralet.inference.adapters import find_adapters, trained_columns
from loralet.inference.ensemble import Ensemble, load_ensemble
from loralet.inference.predictions import Prediction, abstaining
from loralet.report.predictions import WRITERS, Form, output_names
from loralet.runtime import using_threads
from loralet.terminal import note, write_utf8


@dataclass(frozen=True)
class Given:
    """The texts to classify.

    Args:
        texts: the texts.
        rows: their row numbers, for messages.
        columns: the columns of their table; empty without one.
        unit: what the row numbers count.
    """

    texts: Sequence[str]
    rows: Sequence[int]
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    unit: str = "row"


def predict(config: PredictConfig) -> None:
    """Classify texts and print the predictions in input order.

    Raises:
        ConfigError: no texts, texts from several places, or an abstention label that is a label of the classifier.
    """
    runs, output = config.runs, config.output
    _check_input(config.input)
    with using_threads(config.compute.threads):
        adapters = find_adapters(runs)
        given = _given(config.input, adapters)  # an unreadable file is reported before the model is loaded
        ensemble = load_ensemble(adapters, config.model, config.compute)
        given = given or _bundled_texts(ensemble.artifacts)
        if output.abstain_label in ensemble.labels:
            raise ConfigError(f"abstain_label is {output.abstain_label!r}, a label of the classifier: give another one")
        announce(ensemble.backends)
        if len(adapters) > 1:
            members = ", ".join(artifact.id for artifact in ensemble.artifacts)
            note(f"mean probability of {members}")
        elif not runs.one.run and not runs.runs and adapters[0] != Path(runs.one.folder):
            artifact = ensemble.artifacts[0]
            how = "" if artifact.provenance.folds else ", the run chosen on validation"
            note(f"using {artifact.id}{how}")
        unlabelled: list[int] = []
        found = ensemble.predict(given.texts)
        found = abstaining(found, output.min_confidence, output.abstain_label or None)
        found = _noted(found, given.rows, output.min_confidence, unlabelled)
        form = _form(ensemble, given, config)
        if config.format != "table":
            write_utf8(sys.stdout)
        WRITERS[config.format](found, form, sys.stdout)
    _say(given, unlabelled, output.min_confidence)


def _check_input(given: TextInput) -> None:
    """Check that the texts come from one place."""
    if given.texts and given.file:
        raise ConfigError("texts and --file are both given: use one of them")
    if "-" in given.texts and len(given.texts) > 1:
        raise ConfigError("- is standard input, and other texts are given too: use one of them")
    if given.texts and given.texts != ("-",) and given.input_format != "auto":
        raise ConfigError(
            f"input_format is {given.input_format}, and texts are given as arguments: it is the format of --file and "
            "of standard input"
        )


def _given(given: TextInput, adapters: Sequence[Path]) -> Given | None:
    """The texts that the options name; None if there are none and standard input is a terminal.

    Of a table, the text columns of the training data are read, if it has them and no others are named.
    """
    if given.texts and given.texts != ("-",):
        return Given(given.texts, range(1, len(given.texts) + 1))
    if not given.texts and not given.file and sys.stdin.isatty():
        return None
    from loralet.data.texts import read_texts  # imports Arrow, which takes a while
    from loralet.runs.sources import columns_of

    columns = ColumnOptions(given.text_column, separator=given.separator, quoting=given.quoting)
    text, _ = trained_columns(adapters)
    found = read_texts(given.file or "-", given.input_format, replace(columns_of(columns), trained_text=text))
    for remark in found.notes:
        note(remark)
    return Given(found.texts, found.rows, found.columns, found.unit)


def _bundled_texts(artifacts: Sequence[Artifact]) -> Given:
    """The test texts of the bundled data set, for a run that was trained on it.

    Raises:
        ConfigError: the run was trained on other data.
    """
    if any(artifact.provenance.source != DATA for artifact in artifacts):
        raise ConfigError(
            "no texts to classify: give them as arguments, in a file (--file FILE), or on standard input (- or a pipe)"
        )
    note(f"no text given: using the test texts of the bundled {DATA}")
    from loralet.data.files import Columns, read_table

    table = read_table(FOLDER / DATA / "test.csv", Columns())
    return Given(table.texts.to_pylist(), table.rows.to_pylist(), unit=table.unit)


def _form(ensemble: Ensemble, given: Given, config: PredictConfig) -> Form:
    """What to write. Says which columns of the table are written under another name."""
    names = output_names(given.columns, ensemble.labels)
    renamed = [f"{old} as {new}" for old, new in names.items() if old != new]
    if renamed and config.format != "table" and not config.output.labels_only:
        note(f"columns of the input are written under other names: {', '.join(renamed)}")
    columns = {names[name]: values for name, values in given.columns.items()}
    return Form(ensemble.labels, columns, config.output.top_k, config.output.labels_only)


def _noted(
    found: Iterable[Prediction], rows: Sequence[int], least: float, unlabelled: list[int]
) -> Iterator[Prediction]:
    """The predictions; the row numbers of those below the smallest confidence are added to ``unlabelled``."""
    for row, prediction in zip(rows, found, strict=True):
        if prediction.confidence is not None and prediction.confidence < least:
            unlabelled.append(row)
        yield prediction


def _say(given: Given, unlabelled: Sequence[int], least: float) -> None:
    """Print how many texts have no label."""
    empty = [row for row, text in zip(given.rows, given.texts, strict=True) if not text.strip()]
    if empty:
        note(f"no label, as the text is empty: {listed_rows(empty, given.unit)}")
    if unlabelled:
        total = len(given.texts) - len(empty)
        note(f"below the confidence {least:g}: {len(unlabelled):,} of {total:,} texts")
