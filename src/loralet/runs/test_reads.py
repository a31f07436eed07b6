"""Count evaluations on the test rows of a run, whichever way the rows are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from loralet.data.files import read_table
from loralet.data.sources import Split, find_files, fingerprint_rows
from loralet.errors import RunError, UserError
from loralet.hub.bundled import bundled
from loralet.runs.results import Results, read_results, write_results
from loralet.runs.selection import with_test_read
from loralet.runs.sources import columns_of, read_config


def record_test_reads(adapters: Iterable[Path], split: Split, labels: Sequence[str]) -> Iterator[str]:
    """Count an evaluation in the results of each run folder whose test rows were evaluated, and say so.

    Rows are test rows if they are the test split, in any file format, or if half of them, or half of the test split,
    have texts of both. A run folder that cannot be written is only a remark.

    Args:
        adapters: the adapter folders of the evaluated runs.
        split: the rows.
        labels: label names by class number of the rows.
    """
    for folder in dict.fromkeys(adapter.parent.parent for adapter in adapters if adapter.parent.name == "adapters"):
        try:
            results = read_results(folder)
        except (OSError, RunError):
            continue  # a single adapter
        if not results.finished or not _are_test_rows(folder, results, split, labels):
            continue
        counted = with_test_read(results)
        try:
            write_results(folder, counted)
        except (OSError, UserError) as error:
            yield f"these are test rows of {folder}, but this read of them cannot be recorded ({error})"
        else:
            yield f"these are test rows of {folder}, which were read {counted.test_reads} times now"


def _are_test_rows(folder: Path, results: Results, split: Split, labels: Sequence[str]) -> bool:
    data = results.data
    if not data.test_rows:
        return False
    if data.test_fingerprint and fingerprint_rows(split, labels) == data.test_fingerprint:
        return True
    try:
        texts = _test_texts(folder, results)
    except (OSError, UserError):
        return False  # the data have gone
    if not len(texts):
        return False
    shared = len(split.texts.filter(pc.is_in(split.texts, value_set=texts)))
    again = len(texts.filter(pc.is_in(texts, value_set=split.texts.combine_chunks())))
    return 2 * shared >= len(split) or 2 * again >= len(texts)


def _test_texts(folder: Path, results: Results) -> pa.Array:
    """The texts of the test files on this machine; none of a hub data set, which may need the network.

    Raises:
        DataError, ConfigError: the files or the options cannot be read.
        OSError: likewise.
    """
    source = results.data.source
    if not (Path(source).exists() or bundled(source)):
        return pa.array([], pa.string())
    columns = columns_of(read_config(folder, results.kind).reading.columns)
    tables = [read_table(path, columns, labelled=False) for path in find_files(source).get("test", [])]
    return pa.chunked_array([chunk for table in tables for chunk in table.texts.chunks], pa.string()).combine_chunks()
