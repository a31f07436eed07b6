"""Adapter folders and exports to the hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from loralet.artifacts.card import for_hub
from loralet.data.files import SUFFIXES
from loralet.errors import ConfigError
from loralet.hub import client as hub
from loralet.hub.bundled import bundled

PLACES = ("backbone", "base_model_name_or_path", "_name_or_path", "source", "data")
"""Keys of the folders' JSON files whose text may be a place on this machine."""


@dataclass(frozen=True)
class Push:
    """What is to be sent where.

    Args:
        folder, repo, endpoint: from where, and to where.
        files: names and sizes in bytes, as they are sent.
        warning: why nobody else can load it, and what to do; empty where everybody can.
    """

    folder: Path
    repo: str
    endpoint: str
    files: dict[str, int]
    warning: str = ""


def plan_push(folder: Path, repo: str) -> Push:
    """Look at what would be sent; nothing is.

    Raises:
        ConfigError: the repository's name is not of the form owner/name.
    """
    if "/" not in repo or not hub.is_repo_name(repo):
        raise ConfigError(f"{repo!r} is no repository on the hub: the form is owner/name")
    files = {name: len(content) for name, content in contents(folder, repo).items()}
    return Push(folder, repo, hub.endpoint(), files, _warning(folder))


def upload(push: Push, private: bool) -> str:
    """Send the folder as one commit, the card naming the adapter by its new id; returns the commit's address.

    Raises:
        HubError: no token, a refused one, or the hub cannot be reached.
    """
    with tempfile.TemporaryDirectory() as name:
        for file, content in contents(push.folder, push.repo).items():
            (Path(name) / file).write_bytes(content)
        return hub.send(Path(name), push.repo, private)


def contents(folder: Path, repo: str) -> dict[str, bytes]:
    """Every file of the folder, by name, as it is sent: places on this machine become bare names, the card names the repository."""
    found = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }
    places: dict[str, str] = {}
    for name in (name for name in found if name.endswith(".json") and name != "tokenizer.json"):
        described = json.loads(found[name])
        own = dict(_places(described))
        if own:
            found[name] = (json.dumps(_renamed(described, own), indent=2, ensure_ascii=False) + "\n").encode()
        places |= own
    if "README.md" in found:
        card = for_hub(found["README.md"].decode(), repo)
        for place, bare in places.items():
            card = card.replace(json.dumps(place, ensure_ascii=False), json.dumps(bare, ensure_ascii=False))
        found["README.md"] = card.encode()
    return found


def _places(value: Any) -> Iterator[tuple[str, str]]:
    """The places on this machine that a JSON value names, each with its bare name."""
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
    """Of a place on this machine its last part; a hub id, or what comes with loralet, as it is."""
    if Path(name).suffix.lower() not in SUFFIXES and hub.is_hub_id(name):
        return name
    return PureWindowsPath(Path(name).name).name or name


def _warning(folder: Path) -> str:
    """What keeps others from loading an adapter: a backbone that only this machine has."""
    path = next((folder / name for name in ("loralet.json", "adapter_config.json") if (folder / name).exists()), None)
    described = json.loads(path.read_text(encoding="utf-8")) if path else {}
    backbone = described.get("backbone") or described.get("base_model_name_or_path") or ""
    if not backbone or described.get("role") == "full" or bundled(backbone) or hub.is_hub_id(backbone):
        return ""
    return (
        f"the backbone {Path(backbone).name} is a folder of this machine, and nobody else can load the adapter without it: push the whole model "
        "instead (export --to safetensors-bundle or --to hf, with --push), or put the backbone on the hub too"
    )
