"""SIGINT and SIGTERM during training: the first ends it after the current step, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SHOW_CURSOR = b"\x1b[?25h"
"""Control sequence of a terminal; the progress table hides the cursor."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work.

    A KeyboardInterrupt, so that no ``except Exception`` stops it.

    Args:
        number: the signal.
        text: what is kept, and how to go on.
    """

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(text)
        self.number, self.text = number, text


class Interrupts:
    """Signal handlers inside a block. Outside of the main thread, which alone can have them, none are set.

    A first signal raises :class:`Interrupted`: at once, or, while ``deferring`` is set, in the next :meth:`check`. A
    second signal ends the process at once, with status 128 plus its number.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.deferring = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has arrived."""
        if self.requested is not None:
            raise Interrupted(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(128 + number)
        self.requested = number
        if not self.deferring:
            raise Interrupted(number)
