"""Adapter folders and exports to the hub."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from loralet.errors import ConfigError
from loralet.store import hub
from loralet.store.card import for_hub


@dataclass(frozen=True)
class Push:
    """What is to be sent where; ``files`` are names and sizes in bytes."""

    folder: Path
    repo: str
    endpoint: str
    files: dict[str, int]


def plan_push(folder: Path, repo: str) -> Push:
    """Look at what would be sent; nothing is.

    Raises:
        ConfigError: the repository's name is not of the form owner/name.
    """
    if "/" not in repo or not hub.is_repo_name(repo):
        raise ConfigError(f"{repo!r} is no repository on the hub: the form is owner/name")
    files = {name: len(content) for name, content in _contents(folder, repo).items()}
    return Push(folder, repo, hub.endpoint(), files)


def upload(push: Push, private: bool) -> str:
    """Send the folder as one commit, the card naming the adapter by its new id; returns the commit's address.

    Raises:
        HubError: no token, a refused one, or the hub cannot be reached.
    """
    with tempfile.TemporaryDirectory() as name:
        for file, content in _contents(push.folder, push.repo).items():
            (Path(name) / file).write_bytes(content)
        return hub.send(Path(name), push.repo, private)


def _contents(folder: Path, repo: str) -> dict[str, bytes]:
    """Every file of the folder, by name."""
    found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    if "README.md" in found:
        found["README.md"] = for_hub(found["README.md"].decode(), repo).encode()
    return found
