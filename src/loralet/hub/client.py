"""Access to a Hugging Face hub through ``huggingface_hub``: download, cache, offline use, upload.

The client reads HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE at import, so it is imported only when a hub id is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from loralet.cache import provide_hub_cache
from loralet.errors import HubError
from loralet.hub.answers import failure, guard_metadata, safe_commit, safe_names
from loralet.hub.bundled import DATA, MODEL

logger = logging.getLogger(__name__)

Kind = Literal["model", "dataset"]
Choose = Callable[[Sequence[str]], Sequence[str]]

RENAMED_DATASETS = {"ag_news": "fancyzhx/ag_news"}
"""Names without owner that the hub no longer resolves."""


def is_hub_id(name: str) -> bool:
    """Whether ``name`` has the form of a hub id (``name`` or ``owner/name``) and is not a path."""
    return bool(re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?", name)) and not Path(name).exists()


def is_repo_name(name: str) -> bool:
    """Whether ``name`` has the form owner/name, which an upload needs."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name))


def fetch(repo: str, choose: Choose, kind: Kind = "model") -> Path:
    """Download files of a repository.

    Args:
        repo: id of the repository.
        choose: selects the files to download from the names of all files.
        kind: ``model`` or ``dataset``.

    Returns:
        The folder with the chosen files, of the newest revision, or of the cached one if the hub cannot be reached or
        fails (logged as a warning).

    Raises:
        HubError: the repository does not exist, needs a login, is neither reachable nor cached, or the hub's answer is
            not valid.
    """
    provide_hub_cache()
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    guard_metadata()
    if kind == "dataset":
        repo = RENAMED_DATASETS.get(repo, repo)
    try:
        info = HfApi().repo_info(repo, repo_type=kind, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit = safe_commit(info.sha)
        names = safe_names([sibling.rfilename for sibling in getattr(info, "siblings", None) or ()])
        chosen = choose(names)
        if not chosen:
            raise HubError(
                f"{kind} {repo} has none of the required files; it has: {', '.join(sorted(names)) or 'nothing'}"
            )
        paths = [hf_hub_download(repo, name, repo_type=kind, revision=commit) for name in chosen]
        # Offline use needs the branch's commit. The cache records it only for a file requested by branch.
        hf_hub_download(repo, chosen[0], repo_type=kind)
        return _snapshot(Path(paths[0]), chosen[0])
    except HubError:
        raise
    except GatedRepoError as error:
        raise HubError(
            f"{kind} {repo} is gated: accept its terms on the hub, then log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(
            f"{repo!r} is neither a local folder nor a {kind} on the hub ({endpoint()}); "
            "if it is private, log in with `hf auth login`"
        ) from error
    # Transport errors have no common base: by version, the client uses requests, httpx or httpx2.
    except Exception as error:
        return _cached(repo, choose, kind, error)


def _snapshot(path: Path, name: str) -> Path:
    for _ in Path(name).parts:
        path = path.parent
    return path


def _cached(repo: str, choose: Choose, kind: Kind, cause: Exception) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    what = failure(cause)
    folder: Path | None = None
    with suppress(LocalEntryNotFoundError):
        # No patterns: a copy that another tool downloaded in part may still have all required files.
        folder = Path(snapshot_download(repo, repo_type=kind, local_files_only=True, allow_patterns=[]))
    if folder is None or not choose([path.relative_to(folder).as_posix() for path in folder.rglob("*")]):
        raise HubError(
            f"{kind} {repo} is not available: the hub ({endpoint()}) {what}, "
            f"and the cache {constants.HF_HUB_CACHE} has no copy. "
            "Connect once to download it, set HF_HOME to a cache that has it, "
            f"or use a local {'folder' if kind == 'model' else 'file or folder'} "
            f"or the bundled {MODEL if kind == 'model' else DATA}."
        ) from cause
    logger.warning("%s %s: the hub %s; using the copy cached at %s", kind, repo, what, folder)
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
