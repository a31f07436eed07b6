"""Read Parquet and Arrow files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from loralet.data.readers.records import Records
from loralet.errors import DataError


def read_columnar(source: str, content: Path | bytes, form: str) -> Records:
    """Read all columns of a Parquet or Arrow file.

    Args:
        source: the file, for messages.
        content: its path, or its bytes.
        form: ``parquet`` or ``arrow``.

    Raises:
        DataError: the file cannot be read.
    """
    name = form.capitalize()
    try:
        opened = pa.OSFile(str(content)) if isinstance(content, Path) else pa.BufferReader(content)
        table = pyarrow.parquet.read_table(opened) if form == "parquet" else _arrow_table(opened)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source}: not readable as {name} ({error}); write or download it again") from error
    return Records(
        source,
        tuple(table.column_names),
        tuple(table.columns),
        range(1, table.num_rows + 1),
        "row",
        True,
        label_names=_label_names(table.schema),
    )


def _arrow_table(opened: pa.NativeFile) -> pa.Table:
    """An IPC file, or a stream as the datasets library writes it."""
    try:
        return pyarrow.ipc.open_file(opened).read_all()
    except pa.ArrowInvalid:
        opened.seek(0)
        return pyarrow.ipc.open_stream(opened).read_all()


def _label_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Names of ClassLabel features, from the ``huggingface`` key of the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        named = {column: feature["names"] for column, feature in features.items() if "names" in feature}
        return {column: tuple(map(str, names)) for column, names in named.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
