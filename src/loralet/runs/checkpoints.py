"""The checkpoint folder of an unfinished run: records of JSON values and tensors, written atomically.

checkpoint/lock             held by the process that trains (loralet.runs.lock)
checkpoint/NAME.json        a record: its JSON values, and the name and checksum of its tensor file
checkpoint/NAME.N.safetensors   the tensors of the N-th version of the record

The tensor file is complete on the disk before the JSON file that names it replaces the older one, and the older tensor
file is deleted after that. A process that is killed at any moment leaves the old or the new version of a record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from loralet.atomic import new_file, remove_temporaries
from loralet.errors import RunError

FOLDER = "checkpoint"
FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """A record.

    Args:
        values: its JSON values.
        tensors: its tensors by name.
    """

    values: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)


class Checkpoints:
    """The records of an unfinished run. Only the process that holds the lock may write.

    Args:
        folder: the checkpoint folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.folder / "lock"

    def present(self) -> bool:
        """Whether a run folder has checkpoints, or the lock of a run that is about to write some."""
        return self.lock.exists() or any(self.folder.glob("*.json"))

    def exists(self, name: str) -> bool:
        """Whether there is a record of this name; it may be damaged."""
        return self._manifest(name).exists()

    def write(self, name: str, saved: Saved) -> None:
        """Write a record; the previous one stays until the new one is complete on the disk.

        Raises:
            OSError: it cannot be written; ``filename`` names the file.
        """
        older = self._tensor_files(name)
        body: dict[str, Any] = {"format": FORMAT, "values": saved.values, "tensors": None}
        if saved.tensors:
            content = save({key: np.ascontiguousarray(array) for key, array in saved.tensors.items()})
            file = f"{name}.{1 + max(older, default=0)}.safetensors"
            with new_file(self.folder / file) as temporary:
                temporary.write_bytes(content)
            body["tensors"] = {"file": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        with new_file(self._manifest(name)) as temporary:
            temporary.write_text(json.dumps(body | {"sha256": _digest(body)}), encoding="utf-8")
        for path in older.values():
            path.unlink()

    def read(self, name: str) -> Saved | None:
        """Read a record; None if there is none.

        Raises:
            RunError: it is damaged or of another format; the message names the file.
        """
        path = self._manifest(name)
        if not path.exists():
            return None
        try:
            body = json.loads(path.read_bytes())
            if body.pop("sha256") != _digest(body):
                raise ValueError("its checksum is wrong")
            if body["format"] != FORMAT:
                raise ValueError(f"format {body['format']}, this loralet reads format {FORMAT}")
            values, described = body["values"], body["tensors"]
            if not isinstance(values, dict):
                raise TypeError("values is no object")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{path}: damaged ({error})") from error
        return Saved(values, {} if described is None else self._tensors(described))

    def _tensors(self, described: Mapping[str, Any]) -> dict[str, np.ndarray]:
        try:
            path = self.folder / Path(described["file"]).name
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.folder}: damaged (a record names no tensor file)") from error
        try:
            content = path.read_bytes()
            if len(content) != described["bytes"]:
                raise ValueError(f"{len(content):,} bytes, expected {described['bytes']:,}")
            if hashlib.sha256(content).hexdigest() != described["sha256"]:
                raise ValueError("its checksum is wrong")
            return load(content)
        except FileNotFoundError as error:
            raise RunError(f"{path}: missing") from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(f"{path}: damaged ({error})") from error

    def remove(self, name: str) -> None:
        """Delete a record, if there is one."""
        self._manifest(name).unlink(missing_ok=True)
        for path in self._tensor_files(name).values():
            path.unlink()

    def clean(self) -> None:
        """Remove the temporary files of a killed process."""
        remove_temporaries(self.folder)

    def _manifest(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _tensor_files(self, name: str) -> dict[int, Path]:
        """The versions of the tensor file of a record, by number."""
        numbers = ((path.name.split(".")[1], path) for path in self.folder.glob(f"{name}.*.safetensors"))
        return {int(number): path for number, path in numbers if number.isdecimal()}


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
