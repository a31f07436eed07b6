"""Upload adapter folders and exports to the hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from loralet.artifacts.card import for_hub
from loralet.data.readers.records import format_of
from loralet.errors import ConfigError, RunError
from loralet.hub import client as hub
from loralet.hub.bundled import bundled
from loralet.hub.names import is_hub_id, is_repo_name

PLACES = ("backbone", "base_model_name_or_path", "_name_or_path", "source", "data", "class_weight")
"""Keys of the JSON files whose value may be a path on this machine."""


@dataclass(frozen=True)
class Push:
    """A planned upload.

    Args:
        folder: source folder.
        repo, endpoint: target repository and hub.
        files: names and sizes in bytes of the uploaded files.
        warning: why other users cannot load the adapter, and what to do; empty if they can.
    """

    folder: Path
    repo: str
    endpoint: str
    files: dict[str, int]
    warning: str = ""


def plan_push(folder: Path, repo: str) -> Push:
    """Plan an upload without sending anything.

    Raises:
        ConfigError: the repository name does not have the form owner/name.
        RunError: a file of the folder cannot be read.
    """
    if "/" not in repo or not is_repo_name(repo):
        raise ConfigError(f"{repo!r} is not a repository name; use the form owner/name")
    try:
        files = {name: len(content) for name, content in contents(folder, repo).items()}
        return Push(folder, repo, hub.endpoint(), files, _warning(folder))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{folder}: a JSON file or the card cannot be read ({error}); nothing was sent") from error


def upload(push: Push, private: bool) -> str:
    """Upload the folder as one commit; returns the commit's URL. The card refers to the adapter by its new id.

    Raises:
        HubError: no token, a rejected token, or the hub cannot be reached.
    """
    with tempfile.TemporaryDirectory() as name:
        for file, content in contents(push.folder, push.repo).items():
            (Path(name) / file).write_bytes(content)
        return hub.send(Path(name), push.repo, private)


def contents(folder: Path, repo: str) -> dict[str, bytes]:
    """Content of every uploaded file, by name.

    Paths on this machine are replaced by bare names, and the card names the repository.
    """
    found = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }
    places: dict[str, str] = {}
    for name in (name for name in found if name.endswith(".json") and name != "tokenizer.json"):
        described = json.loads(found[name])
        here = dict(_places(described))
        if here:
            found[name] = (json.dumps(_renamed(described, here), indent=2, ensure_ascii=False) + "\n").encode()
        places |= here
    if "README.md" in found:
        card = for_hub(found["README.md"].decode(), repo)
        for place, bare in places.items():
            card = card.replace(json.dumps(place, ensure_ascii=False), json.dumps(bare, ensure_ascii=False))
        found["README.md"] = card.encode()
    return found


def _places(value: Any) -> Iterator[tuple[str, str]]:
    """The local paths in a JSON value, each with its bare name."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in PLACES and isinstance(item, str):
                yield from [(item, bare_name(item))] * (bare_name(item) != item)
            else:
                yield from _places(item)


def _renamed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: places.get(item, item) if key in PLACES and isinstance(item, str) else _renamed(item, places)
            for key, item in value.items()
        }
    return value


def bare_name(name: str) -> str:
    """The last part of a local path. Hub ids and names of bundled files are unchanged."""
    if not format_of(name) and is_hub_id(name):
        return name
    return PureWindowsPath(Path(name).name).name or name


def _warning(folder: Path) -> str:
    """A warning if the adapter's backbone exists only on this machine."""
    path = next((folder / name for name in ("loralet.json", "adapter_config.json") if (folder / name).exists()), None)
    described = json.loads(path.read_text(encoding="utf-8")) if path else {}
    if not isinstance(described, dict):
        raise ValueError("a JSON object is expected")
    backbone = described.get("backbone") or described.get("base_model_name_or_path") or ""
    if not backbone or described.get("role") == "full" or bundled(backbone) or is_hub_id(backbone):
        return ""
    return (
        f"the backbone {Path(backbone).name} is a local folder, and nobody else can load the adapter without it. "
        "Push the whole model instead (export --to safetensors-bundle or --to hf, with --push), "
        "or upload the backbone to the hub too"
    )
