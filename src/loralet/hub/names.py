"""Names of repositories on a hub, with an optional revision and folder: ``owner/name@revision/folder``.

This is the form of ``huggingface_hub.HfFileSystem``. A slash in the name of a branch is written ``%2F``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

PART = r"\w[\w.-]*"
NAME = re.compile(
    rf"(?P<repo>{PART}(?:/{PART})?)(?:@(?P<revision>refs/(?:pr|convert)/\w+|[\w%][\w%.+-]*))?(?P<folder>(?:/{PART})*)"
)


@dataclass(frozen=True)
class HubName:
    """A repository, or a folder of it.

    Args:
        repo: id of the repository.
        revision: branch, tag or commit; the main branch if empty.
        folder: a folder of the repository; empty: all of it.
    """

    repo: str
    revision: str = ""
    folder: str = ""

    def __str__(self) -> str:
        revision = self.revision if self.revision.startswith("refs/") else quote(self.revision, safe="+")
        return self.repo + (f"@{revision}" if revision else "") + (f"/{self.folder}" if self.folder else "")


def parse_name(name: str) -> HubName | None:
    """The parts of a name; None if it does not have the form."""
    found = NAME.fullmatch(name)
    if found is None:
        return None
    revision = unquote(found["revision"] or "")
    if revision and any(part in ("", ".", "..") or not part.isprintable() for part in re.split(r"[/\\]", revision)):
        return None
    return HubName(found["repo"], revision, found["folder"].lstrip("/"))


def is_hub_id(name: str) -> bool:
    """Whether ``name`` is ``name`` or ``owner/name``, with or without a revision, and is not a path."""
    found = parse_name(name)
    return found is not None and not found.folder and not Path(name).exists()


def is_repo_name(name: str) -> bool:
    """Whether ``name`` has the form owner/name, which an upload needs."""
    return bool(re.fullmatch(rf"{PART}/{PART}", name))


def pinned(name: str, revision: str) -> str:
    """A name with a revision; unchanged if it has one, is a path, or is not a name of a repository."""
    found = parse_name(name)
    if revision in ("", "main") or found is None or found.revision or not is_hub_id(name):
        return name
    return str(HubName(found.repo, revision))


def commit_of(folder: Path) -> str:
    """The commit of a folder in the cache of ``huggingface_hub``; empty for other folders."""
    for outer, inner in zip(folder.parts, folder.parts[1:], strict=False):
        if outer == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", inner):
            return inner
    return ""
