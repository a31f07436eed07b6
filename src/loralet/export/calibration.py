"""The rows on which an export is measured: named ones, or the validation split that the run was chosen on."""

from __future__ import annotations

from pathlib import Path

from loralet.artifacts.artifact import Artifact
from loralet.data.files import Columns
from loralet.data.sources import Split, load_labelled
from loralet.errors import DataError, HubError, RunError
from loralet.runs.folder import read_config
from loralet.runs.results import read_results
from loralet.training.corpus import load_corpus


def calibration_rows(adapter: Path, artifact: Artifact, data: str, columns: Columns) -> Split:
    """Labelled rows that the run was not trained on.

    Args:
        adapter: the run's adapter folder.
        artifact: what is in it.
        data: a file or folder of labelled rows; when empty, the run folder's data is read and split again.
        columns: which columns of ``data`` hold what.

    Raises:
        DataError: the data cannot be read, or has labels that the run does not know.
        RunError: there is no run folder around the adapter, or its data has changed.
    """
    if data:
        return load_labelled(data, columns, artifact.as_task())
    folder = adapter.resolve().parent.parent
    if adapter.resolve().parent.name != "adapters" or not (folder / "config.toml").exists():
        raise RunError(f"{adapter} is a single adapter: name labelled rows to measure on with --data")
    results = read_results(folder)
    config = read_config(folder, results.kind)
    try:
        corpus = load_corpus(results.data.source, config.reading, config.training.validation_sample)
    except (DataError, HubError) as error:
        raise RunError(
            f"{folder}: its data cannot be read again ({error}); name labelled rows to measure on with --data"
        ) from error
    if corpus.dataset.fingerprint != artifact.data_fingerprint:
        raise RunError(
            f"{results.data.source} has changed since {folder} was trained on it: name rows to measure on with --data"
        )
    return corpus.validation
