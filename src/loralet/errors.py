"""The exceptions of loralet.

LoraletError
├── UserError            an error that the user can fix: exit status 2, one message, no traceback
│   ├── ConfigError      one or more invalid options (also a ValueError, as scikit-learn expects)
│   ├── DataError        a data file; the message names the file and, if known, the row
│   │   └── InputError   texts or labels passed in Python (also a ValueError, as scikit-learn expects)
│   ├── CheckpointError  a backbone or tokenizer that cannot be used
│   ├── HubError         a hub file that is neither reachable nor cached
│   └── RunError         a run folder or adapter folder that cannot be used
├── TrainingError        training failed: exit status 1
└── CheckError           an output failed its check and was not kept: exit status 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class LoraletError(Exception):
    """Base class of all errors that loralet raises."""


class UserError(LoraletError):
    """An error that the user can fix; the message says how."""


class ConfigError(UserError, ValueError):
    """One or more invalid options. Also a ValueError, as scikit-learn expects."""

    @classmethod
    def listing(cls, problems: Iterable[str], where: str = "") -> ConfigError:
        """One error that lists every problem, one per line."""
        found = list(problems)
        title = f"{len(found)} problem{'s' if len(found) > 1 else ''} in the options"
        return cls("\n".join([f"{title}{f' ({where})' if where else ''}:", *(f"  - {p}" for p in found)]))


class DataError(UserError):
    """A table of texts that cannot be read or used."""


class InputError(DataError, ValueError):
    """Texts or labels, passed in Python, that cannot be used. Also a ValueError, as scikit-learn expects."""


class CheckpointError(UserError):
    """A backbone checkpoint or tokenizer that cannot be used."""


class HubError(UserError):
    """A hub file that is neither reachable nor cached."""


class RunError(UserError):
    """A run folder or adapter folder that cannot be used."""


class TrainingError(LoraletError):
    """Training produced no model, for example because every run diverged."""


class CheckError(LoraletError):
    """An output differs from its source, or loses too much accuracy. It was not kept."""


OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory")
"""Parts of torch's messages."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation has failed, in Python, in the kernels or in torch, whose error is a RuntimeError."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


SHOWN_ROWS = 5
"""Largest number of rows listed in one message."""


def listed_rows(rows: Sequence[int], unit: str = "row", shown: int = SHOWN_ROWS) -> str:
    """``row 7`` or ``3 rows (7, 9, 12)`` or ``20 rows (7, 9, 12, 15, 18, ...)``.

    Args:
        rows: their numbers, from 1.
        unit: what is counted: ``line`` of a text file, or ``row``.
        shown: largest number of rows to list.
    """
    if len(rows) == 1:
        return f"{unit} {rows[0]}"
    return f"{len(rows):,} {unit}s ({', '.join(map(str, rows[:shown]))}{', ...' if len(rows) > shown else ''})"


def is_utf8(text: str) -> bool:
    """Whether a text can be encoded as UTF-8. Bytes that are not UTF-8 become lone surrogates on the command line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
