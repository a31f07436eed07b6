"""The rows on which an export is evaluated: given rows, the run's validation split, or its training rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loralet.artifacts.artifact import Artifact
from loralet.data.files import Columns
from loralet.data.sources import Split, load_labelled
from loralet.errors import DataError, HubError, RunError
from loralet.runs.results import read_results
from loralet.runs.sources import read_config
from loralet.training.corpus import load_corpus


def calibration_rows(adapter: Path, artifact: Artifact, data: str, columns: Columns, indices: bool = False) -> Split:
    """Labelled rows that the run was not trained on; if it was trained on all rows (``--folds``), these.

    Args:
        adapter: the run's adapter folder.
        artifact: the content of the adapter folder.
        data: a file or folder of labelled rows; when empty, the run folder's data is read and split again.
        columns: the text and label columns of ``data``.
        indices: whether the labels of ``data`` are indices into the run's label names.

    Raises:
        DataError: the data cannot be read, or has labels that the run does not know.
        RunError: the adapter is not in a run folder, or its data has changed.
    """
    if data:
        made = artifact.provenance
        columns = replace(columns, trained_text=made.text_columns, trained_label=made.label_column)
        return load_labelled(data, columns, artifact.as_task(), indices)
    folder = adapter.resolve().parent.parent
    if adapter.resolve().parent.name != "adapters" or not (folder / "config.toml").exists():
        raise RunError(f"{adapter}: a single adapter has no validation rows; give labelled rows with --data")
    results = read_results(folder)
    config = read_config(folder, results.kind)
    try:
        folds = results.data.folds or 0
        corpus = load_corpus(results.data.source, config.reading, config.training.validation_sample, folds)
    except (DataError, HubError) as error:
        raise RunError(f"{folder}: the run's data cannot be read ({error}); give labelled rows with --data") from error
    if corpus.dataset.fingerprint != artifact.data_fingerprint:
        raise RunError(
            f"{results.data.source} has changed since {folder} was trained on it; give labelled rows with --data"
        )
    rows = corpus.validation
    return replace(rows, source=f"{rows.source}, training rows") if folds else rows
