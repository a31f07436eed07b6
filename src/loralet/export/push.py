"""Upload adapter folders and exports to the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from loralet.artifacts.card import for_hub
from loralet.artifacts.reading import read_described
from loralet.data.readers.records import format_of
from loralet.errors import ConfigError, RunError
from loralet.export.base import SUFFIX, base_files, needs_base, on_base
from loralet.export.exported import sizes
from loralet.export.graphs import FOLDER_NAME
from loralet.hub import client as hub
from loralet.hub.bundled import bundled
from loralet.hub.names import is_hub_id, is_repo_name
from loralet.leftovers import temporary_folder

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
        base: names and sizes of the files of the base, which has a repository of its own; empty without one.
    """

    folder: Path
    repo: str
    endpoint: str
    files: dict[str, int]
    warning: str = ""
    base: dict[str, int] = field(default_factory=dict)


def plan_push(folder: Path, repo: str, base: bool = True) -> Push:
    """Plan an upload without sending anything.

    Args:
        folder: an adapter or an export.
        repo: the repository.
        base: also plan a repository for the base of an adapter on the bundled encoder.

    Raises:
        ConfigError: the repository name does not have the form owner/name.
        RunError: a file of the folder cannot be read.
    """
    if "/" not in repo or not is_repo_name(repo):
        raise ConfigError(f"{repo!r} is not a repository name; use the form owner/name")
    try:
        own = base and needs_base(folder)
        files = {name: len(content) for name, content in contents(folder, repo, own).items()}
        below = {name: len(content) for name, content in (base_files(folder, repo) if own else {}).items()}
        return Push(folder, repo, hub.endpoint(), files, _warning(folder), below)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{folder}: a JSON file or the card cannot be read ({error}); nothing was sent") from error


def upload(push: Push, private: bool) -> str:
    """Upload the folder as one commit, after its base; returns the commit's URL.

    The card refers to the adapter by its new id.

    Raises:
        HubError: no token, a rejected token, or the hub cannot be reached.
    """
    if push.base:
        _send(base_files(push.folder, push.repo), f"{push.repo}{SUFFIX}", private)
    return _send(contents(push.folder, push.repo, bool(push.base)), push.repo, private)


def _send(files: dict[str, bytes], repo: str, private: bool) -> str:
    with temporary_folder() as folder:
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content)
        return hub.send(folder, repo, private)


def contents(folder: Path, repo: str, base: bool = False) -> dict[str, bytes]:
    """Content of every uploaded file, by its path in the folder.

    Of subfolders, only onnx/ is uploaded. Paths on this machine are replaced by bare names, and the card names the
    repository. With ``base``, adapter_config.json and card name the repository of the base.
    """
    kept = [name for name in sizes(folder) if "/" not in name or name.startswith(f"{FOLDER_NAME}/")]
    found = {name: (folder / name).read_bytes() for name in kept}
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
    return on_base(found, str(read_described(folder)["backbone"]), f"{repo}{SUFFIX}") if base else found


def _places(value: Any) -> Iterator[tuple[str, str]]:
    """The local paths in a JSON value, each with its bare name."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in PLACES and isinstance(item, str):
                yield from [(item, bare_name(item))] * (bare_name(item) != item)
            else:
                yield from _places(item)
    elif isinstance(value, list):
        for item in value:
            yield from _places(item)


def _renamed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: places.get(item, item) if key in PLACES and isinstance(item, str) else _renamed(item, places)
            for key, item in value.items()
        }
    return [_renamed(item, places) for item in value] if isinstance(value, list) else value


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
