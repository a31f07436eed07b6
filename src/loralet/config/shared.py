"""Options of several classes: type, marks and help of each. Every class has its own default.

The help of ``targets`` is in :mod:`loralet.adapters.spec`, which must not import tyro.
"""

from __future__ import annotations

from typing import Annotated, Literal

from tyro.conf import Positional, arg

TrainingData = Annotated[
    Positional[str],
    arg(
        metavar="DATA",
        help="CSV, TSV, JSONL or Parquet file, folder with train/validation/test files, hub data set, or news-mini.",
    ),
]
TextColumn = Annotated[str, arg(help="Text column, or columns joined by +; detected by common names if empty.")]
Quoting = Literal["auto", "standard", "none"]
Separator = Annotated[
    str, arg(help="Character between the columns of CSV and TSV, or comma, semicolon, tab, pipe; detected if empty.")
]
Quotes = Annotated[
    Quoting,
    arg(help="Quotes in CSV and TSV: standard encloses fields, none is an ordinary character; auto: detected."),
]
LabelsAreIndices = Annotated[
    bool, arg(help="Labels in DATA are indices into the run's label names, from 0; else they are compared by value.")
]
MaxLength = Annotated[
    int, arg(help="Maximum text length in tokens, including special tokens; longer texts are truncated.")
]
ChosenLength = Annotated[
    int | None,
    arg(help="Maximum text length in tokens; longer texts are truncated. If not set, it covers 99 of 100 texts."),
]
CheckpointEvery = Annotated[
    float, arg(help="Seconds between checkpoints, more if writing takes over 1 % of the time; 0: every step.")
]
Quiet = Annotated[bool, arg(help="Show no progress.")]
JsonEvents = Annotated[bool, arg(help="Print only events to standard output, one JSON object per line.")]
Private = Annotated[bool, arg(help="Make the repository private.")]

OUTPUT_FORMAT = arg(help="Output format.")
"""Help of ``--format``; each command has its own formats."""
