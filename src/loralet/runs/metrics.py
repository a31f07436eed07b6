"""metrics.jsonl during training. Checkpoints contain the events of their pack, so a resume can write the file again."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from loralet.atomic import naming, new_file
from loralet.events import Event, event_line

NAME = "metrics.jsonl"


class MetricsFile:
    """Appends events to metrics.jsonl.

    Args:
        path: the file.
        content: what the file begins with, instead of what it contains; None: what it contains.
    """

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        self._file = self._opened(content)

    def _opened(self, content: bytes | None) -> FileIO:
        if content is not None or not self.path.exists():
            with new_file(self.path) as temporary:
                temporary.write_bytes(content or b"")
        self.begin()
        return self.path.open("ab", buffering=0)

    def replace(self, content: bytes) -> None:
        """Replace the content of the file."""
        self._file.close()
        self._file = self._opened(content)

    def begin(self) -> None:
        """Begin a pack at the end of the file."""
        self._start = self.path.stat().st_size

    def append(self, event: Event) -> None:
        """Append an event; errors as for :meth:`append_lines`."""
        self.append_lines((event_line(event) + "\n").encode())

    def append_lines(self, lines: bytes) -> None:
        """Append complete lines.

        Raises:
            OSError: the file cannot be written; ``filename`` is its path.
        """
        left = memoryview(lines)
        with naming(self.path):
            while left:
                left = left[self._file.write(left) :]

    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file.fileno()).st_size

    def since_begin(self, end: int | None = None) -> bytes:
        """The lines since the last :meth:`begin`, up to a :meth:`size` of the file, or all."""
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read() if end is None else file.read(max(0, end - self._start))

    def close(self) -> None:
        """Write the file to the disk and close it."""
        with naming(self.path):
            os.fsync(self._file.fileno())
        self._file.close()
