"""Checks of a hub's answers before they become paths of the cache, and what its failures mean.

The hub may be any server (``HF_ENDPOINT``). ``huggingface_hub`` makes paths of the cache from an answer's ETag and
commit, and of the names of a repository's files.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from loralet.errors import HubError

ETAG = re.compile(r"[\w.=+-]{1,200}")
COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SLOWEST = 1024
"""Bytes per second below which a transfer is given up."""
PERIODS = 3
"""Number of read timeouts (HF_HUB_DOWNLOAD_TIMEOUT) over which the speed of a transfer is measured."""
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class SlowTransferError(TimeoutError):
    """An answer whose bytes come so slowly that it would never end."""


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


def limit_slowness() -> None:
    """Give up answers that come slowly. The client's own timeout is that of one read, which may bring a single byte."""
    from huggingface_hub import constants, get_session

    hooks = get_session().event_hooks["response"]
    if not any(getattr(hook, "limits", False) for hook in hooks):

        def paced(response: Any) -> None:
            response.stream = _paced(response.stream, PERIODS * constants.HF_HUB_DOWNLOAD_TIMEOUT)

        paced.limits = True  # type: ignore[attr-defined]
        hooks.append(paced)


def _paced(stream: Any, seconds: float) -> Any:
    """A stream of bytes that ends with an error if it brings less than :data:`SLOWEST` per second.

    Args:
        stream: the stream of an answer, of httpx or httpx2, whose responses require the class of their own library.
        seconds: how long the speed is measured before it counts.
    """
    kind = next((one for one in type(stream).__mro__ if one.__name__ == "SyncByteStream"), None)
    if kind is None:
        return stream

    def chunks(_: Any) -> Iterator[bytes]:
        begin, count = time.monotonic(), 0
        for chunk in stream:
            yield chunk
            count, now = count + len(chunk), time.monotonic()
            if now - begin >= seconds:
                if count < SLOWEST * (now - begin):
                    raise SlowTransferError(f"{count:,} bytes in {now - begin:.0f} s")
                begin, count = now, 0

    return type("Paced", (kind,), {"__iter__": chunks, "close": lambda _: stream.close()})()


def safe_names(names: Sequence[str]) -> list[str]:
    """The names of files that are inside the repository's folder; a hub may list others."""
    return [name for name in names if not _leaves(name)]


def _leaves(name: str) -> bool:
    parts = re.split(r"[/\\]", name)
    return "\\" in name or ":" in parts[0] or any(part in ("", ".", "..") or not part.isprintable() for part in parts)


def is_as_announced(path: Path) -> bool:
    """Whether a file of the cache has the SHA-256 that the hub gave as its ETag; true if the ETag is no SHA-256.

    The cache names the content of a file after its ETag.
    """
    blob = path.resolve()
    if not SHA256.fullmatch(blob.name):
        return True
    digest = hashlib.sha256()
    with blob.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == blob.name


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
    if any(isinstance(one, SlowTransferError) for one in _causes(error)):
        return f"sends too slowly ({reason}); try again later"
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
