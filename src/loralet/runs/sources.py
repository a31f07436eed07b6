"""The options and the data of a run folder, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loralet.config import ColumnOptions, DataOptions, StudyConfig, TeachConfig, TrainConfig
from loralet.config.data import SEPARATORS
from loralet.config.toml import read_options
from loralet.data.files import Columns
from loralet.data.sources import Dataset, load_dataset
from loralet.tasks.single_label import SingleLabel

RunOptions = StudyConfig | TrainConfig
KINDS: Mapping[str, type[RunOptions]] = {"study": StudyConfig, "train": TrainConfig, "teach": TeachConfig}
"""Options of each kind of run."""


def read_config(folder: Path, kind: str) -> RunOptions:
    """The options of a run folder.

    Args:
        folder: the run folder.
        kind: one of :data:`KINDS`, from the results.

    Raises:
        ConfigError: config.toml cannot be read.
    """
    return read_options(folder / "config.toml", KINDS[kind])


def columns_of(options: ColumnOptions) -> Columns:
    """Convert column options for the data readers."""
    separator = SEPARATORS.get(options.separator, options.separator)
    return Columns(options.text_column, options.label_column, options.columns, separator, options.quoting)


def dataset_of(source: str, options: DataOptions, task: str = SingleLabel.name) -> Dataset:
    """Load a data set with these options, for the task of this name.

    Raises:
        DataError, HubError: see :func:`loralet.data.sources.load_dataset`.
    """
    return load_dataset(source, columns_of(options.columns), options.label_names, options.drop_overlap, task)
