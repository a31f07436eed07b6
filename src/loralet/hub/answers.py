"""Checks of a hub's answers before they become paths of the cache, and what its failures mean.

The hub may be any server (``HF_ENDPOINT``). ``huggingface_hub`` makes paths of the cache from an answer's ETag and
commit, and of the names of a repository's files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

from loralet.errors import HubError

ETAG = re.compile(r"[\w.=+-]{1,200}")
COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def guard_metadata() -> None:
    """Check the ETag and the commit of every answer on which ``huggingface_hub`` bases a download."""
    from huggingface_hub import file_download

    plain: Callable[..., Any] = file_download.get_hf_file_metadata
    if getattr(plain, "guarded", False):
        return

    @wraps(plain)
    def guarded(*arguments: Any, **options: Any) -> Any:
        found = plain(*arguments, **options)
        for what, value, form in (("ETag", found.etag, ETAG), ("commit", found.commit_hash, COMMIT)):
            if value is not None and (not form.fullmatch(value) or value.startswith(".")):
                raise HubError(f"the hub gave the {what} {value[:60]!r}, which is not one; nothing was downloaded")
        return found

    guarded.guarded = True  # type: ignore[attr-defined]
    file_download.get_hf_file_metadata = guarded


def safe_names(names: Sequence[str]) -> list[str]:
    """The names of files that are inside the repository's folder; a hub may list others."""
    return [name for name in names if not _leaves(name)]


def _leaves(name: str) -> bool:
    parts = re.split(r"[/\\]", name)
    return "\\" in name or ":" in parts[0] or any(part in ("", ".", "..") or not part.isprintable() for part in parts)


def safe_commit(commit: object) -> str:
    """The commit of a repository.

    Raises:
        HubError: it is not one.
    """
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise HubError(f"the hub gave the commit {str(commit)[:60]!r}, which is not one; nothing was downloaded")
    return commit


def status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that an error or one of its causes is about; None without an answer."""
    for one in _causes(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def failure(error: Exception) -> str:
    """What went wrong, for a message: that the hub was not reached, or how it answered."""
    text = str(error).strip()
    reason = text.splitlines()[0][:300] if text else type(error).__name__
    status = status_of(error)
    if status is not None:
        words = {401: f"the login is missing or not valid; {LOGIN}", 403: f"access is denied; {LOGIN}"}
        words |= {429: "too many requests; try again later"}
        advice = words.get(status, "try again later" if status >= 500 else "")
        return f"answered with status {status}{f': {advice}' if advice else ''} ({reason})"
    malformed = (ValueError, KeyError, TypeError, AttributeError, UnicodeError)
    if "Consistency check failed" in text or any(isinstance(one, malformed) for one in _causes(error)):
        return f"gave an answer that is not valid ({reason})"
    return f"was not reached ({reason})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and the errors that caused it, without repetition."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        one = one.__cause__
