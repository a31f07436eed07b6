"""The errors loralet raises, as one tree.

LoraletError
├── UserError            the user can mend it: exit status 2, one message, no traceback
│   ├── ConfigError      an option, or several of them
│   ├── DataError        a table: names the file and, where there is one, the row
│   │   └── InputError   texts or labels handed over in Python (a ValueError too, as scikit-learn's callers expect)
│   ├── CheckpointError  a backbone or tokenizer that cannot be used as it is
│   ├── HubError         a file that should come from the hub and does not
│   └── RunError         a run folder or adapter folder that cannot be used as it is
├── TrainingError        the work itself failed: exit status 1
└── CheckError           what was written did not pass its check, and was not kept: exit status 1
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class LoraletError(Exception):
    """Base of everything raised on purpose."""


class UserError(LoraletError):
    """Something the user can mend; the message says how."""


class ConfigError(UserError, ValueError):
    """One or more options that cannot be honoured; a ValueError too, as scikit-learn's callers expect."""

    @classmethod
    def listing(cls, problems: Iterable[str], where: str = "") -> ConfigError:
        """One error that lists every problem, one a line."""
        found = list(problems)
        title = f"{len(found)} problem{'s' if len(found) > 1 else ''} in the options"
        return cls("\n".join([f"{title}{f' ({where})' if where else ''}:", *(f"  - {p}" for p in found)]))


class DataError(UserError):
    """A table of texts that cannot be read or used."""


class InputError(DataError, ValueError):
    """Texts or labels, handed over in Python, that cannot be used."""


class CheckpointError(UserError):
    """A backbone checkpoint or tokenizer that cannot be used."""


class HubError(UserError):
    """A hub file that is neither reachable nor cached."""


class RunError(UserError):
    """A run folder or adapter folder that cannot be used."""


class TrainingError(LoraletError):
    """Training could not produce a model (every run diverged, say)."""


class CheckError(LoraletError):
    """Something written does not give what it was made from, or costs too much accuracy; it was not kept."""


SHOWN_ROWS = 5
"""Rows named in one message."""


def listed_rows(rows: Sequence[int]) -> str:
    """``row 7`` or ``3 rows (7, 9, 12)`` or ``20 rows (7, 9, 12, 15, 18, ...)``."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    return f"{len(rows)} rows ({', '.join(map(str, rows[:SHOWN_ROWS]))}{', ...' if len(rows) > SHOWN_ROWS else ''})"
