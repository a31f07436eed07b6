"""Access to a Hugging Face hub through ``huggingface_hub``: download, cache, offline use, upload.

The client reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE at import, so it is imported only when a hub id is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from loralet.cache import provide_hub_cache
from loralet.errors import HubError
from loralet.hub.answers import failure, guard_metadata, is_as_announced, limit_slowness, safe_commit, safe_names
from loralet.hub.bundled import DATA, MODEL
from loralet.hub.names import HubName, parse_name

logger = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]
Choose = Callable[[Sequence[str]], Sequence[str]]

RENAMED_DATASETS = {"ag_news": "fancyzhx/ag_news"}
"""Names without owner that the hub no longer resolves."""


def fetch(name: str, choose: Choose, kind: Kind = "model") -> Path:
    """Download files of a repository, or of one of its folders.

    Args:
        name: id of the repository, with a revision and a folder if wanted (:mod:`loralet.hub.names`).
        choose: selects the files to download from the names of all files, relative to the folder.
        kind: ``model`` or ``dataset``.

    Returns:
        The folder with the chosen files, of the revision or of the newest one, or the cached one if the hub cannot be
        reached or fails (logged as a warning).

    Raises:
        HubError: the repository or the revision does not exist, needs a login, is neither reachable nor cached, or the
            hub's answer is not valid.
    """
    provide_hub_cache()
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    guard_metadata()
    limit_slowness()
    wanted = _wanted(name, kind)
    repo, revision = wanted.repo, wanted.revision or None
    try:
        info = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit = safe_commit(info.sha)
        names = safe_names([sibling.rfilename for sibling in getattr(info, "siblings", None) or ()])
        chosen = choose(_inside(names, wanted.folder))
        if not chosen:
            raise HubError(
                f"{kind} {wanted} has none of the required files; it has: {', '.join(sorted(names)) or 'nothing'}"
            )
        paths = [_download(repo, str(PurePosixPath(wanted.folder, file)), kind, commit) for file in chosen]
        # Offline use needs the branch's commit. The cache records it only for a file requested by branch.
        if revision != commit:
            hf_hub_download(repo, str(PurePosixPath(wanted.folder, chosen[0])), repo_type=kind, revision=revision)
        return _snapshot(paths[0], chosen[0])
    except HubError:
        raise
    except GatedRepoError as error:
        raise HubError(
            f"{kind} {repo} is gated: accept its terms on the hub, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{kind} {repo} on the hub ({endpoint()}) has no branch, tag or commit {wanted.revision!r}; "
            f"give another one after @, or {repo} alone for its newest revision"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(
            f"{repo!r} is neither a local folder nor a {kind} on the hub ({endpoint()}); "
            "if it is private, log in with `hf auth login`"
        ) from error
    # Transport errors have no common base: by version, the client uses requests, httpx or httpx2.
    except Exception as error:
        return _cached(wanted, choose, kind, error)


def _wanted(name: str, kind: Kind) -> HubName:
    """The parts of a name.

    Raises:
        HubError: it does not have the form.
    """
    found = parse_name(name)
    if found is None:
        raise HubError(f"{name!r} is not the name of a {kind} on the hub: owner/name, or owner/name@revision")
    return replace(found, repo=RENAMED_DATASETS.get(found.repo, found.repo)) if kind == "dataset" else found


def _inside(names: Sequence[str], folder: str) -> list[str]:
    """The names of the files in a folder, relative to it."""
    start = f"{folder}/" if folder else ""
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def _download(repo: str, file: str, kind: Kind, commit: str) -> Path:
    """A file in the cache, whose content is compared with the hub's SHA-256 when it is downloaded.

    Raises:
        HubError: it differs.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(repo, file, revision=commit, repo_type=kind), str)
    path = Path(hf_hub_download(repo, file, repo_type=kind, revision=commit))
    if not cached and not is_as_announced(path):
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise HubError(
            f"{kind} {repo}: the content of {file} is not what the hub ({endpoint()}) announced (another SHA-256); "
            "it was not kept; try again, perhaps without a proxy"
        )
    return path


def _snapshot(path: Path, name: str) -> Path:
    for _ in Path(name).parts:
        path = path.parent
    return path


def _cached(wanted: HubName, choose: Choose, kind: Kind, cause: Exception) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = failure(cause)
    folder: Path | None = None
    with suppress(LocalEntryNotFoundError):
        # No patterns: a copy that another tool downloaded in part may still have all required files.
        found = snapshot_download(
            wanted.repo,
            repo_type=kind,
            revision=wanted.revision or None,
            local_files_only=True,
            allow_patterns=[],
        )
        folder = Path(found, wanted.folder)
    if folder is None or not choose([path.relative_to(folder).as_posix() for path in folder.rglob("*")]):
        raise HubError(
            f"{kind} {wanted} is not available: the hub ({endpoint()}) {what}, "
            f"and the cache {constants.HF_HUB_CACHE} has no copy. "
            "Connect once to download it, set HF_HOME to a cache that has it, "
            f"or use a local {'folder' if kind == 'model' else 'file or folder'} "
            f"or the bundled {MODEL if kind == 'model' else DATA}."
        ) from cause
    logger.warning("%s %s: the hub %s; using the copy cached at %s", kind, wanted, what, folder)
    return folder


def endpoint() -> str:
    """URL of the hub in use."""
    provide_hub_cache()
    from huggingface_hub import constants

    return constants.ENDPOINT


def send(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder as one commit to a model repository, which is created if missing; returns the commit's URL.

    Raises:
        HubError: no token, a token that the hub rejects, or a hub that cannot be reached.
    """
    provide_hub_cache()
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise HubError("no token for the hub: log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload by loralet").commit_url)
    except Exception as error:  # no common base, as in fetch
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HubError(
            f"{repo} on {endpoint()} could not be written ({reason}); check that the token has write access"
        ) from error
