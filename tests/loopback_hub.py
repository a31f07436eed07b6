"""A minimal Hugging Face Hub on 127.0.0.1 that serves folders as model and data set repositories.

From a shell, with FOLDER/models/owner/name/... and FOLDER/datasets/owner/name/...::

    python tests/loopback_hub.py FOLDER --port 8000 &
    HF_ENDPOINT=http://127.0.0.1:8000 HF_HUB_DISABLE_XET=1 loralet train ...
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

REPOSITORY = r"(?P<repo>[^/]+(?:/[^/]+)?)"
API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{REPOSITORY}(?:/(?P<what>revision|tree)/(?P<revision>[^/]+)(?P<under>/.*)?)?"
)
RESOLVE = re.compile(rf"/(?P<kind>datasets/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
PAUSE = 0.2
"""Seconds between two bytes of a slow answer."""


class Request(NamedTuple):
    """A received request."""

    method: str
    path: str
    status: int


@dataclass
class LoopbackHub:
    """Serves folders until the ``with`` block ends.

    Args:
        models: folder of each repository id. The folder is read at each request; a changed file makes a new commit.
        datasets: the same for data sets.
        gated: ids of repositories whose files (not file lists) return 403.
        broken: return 503 for all requests.
        unavailable: path suffixes of files that return 403, as from a filtering proxy.
        cut_once: path suffixes of files whose first transfer stops half-way.
        statuses: status of all requests whose path contains a text.
        status_once: status of the first request whose path contains a text.
        malformed: texts in the paths of file lists that are answered with something else than JSON.
        etag, commit: replace those of all files, as a hostile hub does.
        listed: further names in all file lists.
        revisions: folder of each further branch or tag, by ``owner/name@revision``.
        slow: texts in the paths of files that are sent one byte every :data:`PAUSE` seconds.
        longer: texts in the paths of files that the answers to HEAD say are longer than they are.
        etags: ETag of files whose path contains a text.
        elsewhere: URL of another server to which all downloads are redirected.
        requests: received requests, in order.
        tokens: values of the header Authorization that were received.
    """

    models: Mapping[str, Path] = field(default_factory=dict)
    datasets: Mapping[str, Path] = field(default_factory=dict)
    gated: frozenset[str] = frozenset()
    broken: bool = False
    unavailable: set[str] = field(default_factory=set)
    cut_once: set[str] = field(default_factory=set)
    statuses: Mapping[str, int] = field(default_factory=dict)
    status_once: dict[str, int] = field(default_factory=dict)
    malformed: Mapping[str, bytes] = field(default_factory=dict)
    etag: str = ""
    commit: str = ""
    listed: tuple[str, ...] = ()
    revisions: Mapping[str, Path] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    longer: set[str] = field(default_factory=set)
    etags: Mapping[str, str] = field(default_factory=dict)
    elsewhere: str = ""
    tokens: list[str | None] = field(default_factory=list)
    port: int = 0
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> LoopbackHub:
        hub = self

        class Handler(_Handler):
            served = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def downloaded(self) -> list[str]:
        """Sorted paths of the files whose content was requested."""
        return sorted({urlsplit(r.path).path for r in self.requests if r.method == "GET" and "/resolve/" in r.path})


def commit_of(folder: Path) -> str:
    """A commit hash of 40 hexadecimal digits that depends on all file names and contents."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in _names(folder):
        digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", commit: str = "") -> None:
        self.status, self.code, self.commit = status, code, commit


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not print requests; they are recorded."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            self.served.tokens.append(self.headers.get("Authorization"))
            if self.served.broken:
                raise _RefusedError(503)
            for part, status in (*self.served.statuses.items(), *list(self.served.status_once.items())):
                if part in path:
                    self.served.status_once.pop(part, None)
                    raise _RefusedError(status)
            for part, content in self.served.malformed.items():
                if part in path:
                    self._send(200, content, {"Content-Type": "application/json"})
                    return
            if match := API.fullmatch(path):
                self._send(
                    200, json.dumps(self._api(**match.groupdict())).encode(), {"Content-Type": "application/json"}
                )
            elif match := RESOLVE.fullmatch(path):
                self._resolve(path, **match.groupdict())
            else:
                raise _RefusedError(404)
        except _RefusedError as refusal:
            headers = {
                "X-Error-Code": refusal.code,
                "X-Repo-Commit": refusal.commit,
                "X-Error-Message": refusal.code or "refused",
            }
            self._send(refusal.status, b"", {name: value for name, value in headers.items() if value})

    def _api(self, kind: str, repo: str, what: str | None, revision: str | None, under: str | None) -> Any:
        folder, commit = self._find(kind, repo, revision or "main")
        if what == "tree":
            inside = unquote(under or "").strip("/")
            return [
                {
                    "type": "file",
                    "path": name,
                    "size": (folder / name).stat().st_size,
                    "oid": _etag((folder / name).read_bytes()),
                }
                for name in _names(folder)
                if not inside or name.startswith(f"{inside}/")
            ]
        siblings = [{"rfilename": name} for name in (*self.served.listed, *_names(folder))]
        gated = "manual" if repo in self.served.gated else False
        return {
            "_id": commit[:24],
            "id": repo,
            "sha": self.served.commit or commit,
            "siblings": siblings,
            "private": False,
            "gated": gated,
            "disabled": False,
            "tags": [],
        }

    def _resolve(self, path: str, kind: str | None, repo: str, revision: str, file: str) -> None:
        folder, commit = self._find("datasets" if kind else "models", repo, revision)
        if repo in self.served.gated:
            raise _RefusedError(403, "GatedRepo")
        if file not in _names(folder):
            raise _RefusedError(404, "EntryNotFound", commit)
        if path.endswith(tuple(self.served.unavailable)):
            raise _RefusedError(403)
        content = (folder / file).read_bytes()
        own = next((etag for part, etag in self.served.etags.items() if part in path), _etag(content))
        etag = self.served.etag or own
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Type": "application/octet-stream"}
        if self.served.elsewhere:
            linked = {"X-Linked-Etag": headers.pop("ETag"), "X-Linked-Size": str(len(content))}
            self._send(302, b"", headers | linked | {"Location": f"{self.served.elsewhere}{path}"})
            return
        if self.command == "HEAD" and any(part in path for part in self.served.longer):
            content += b" "
        if self.command == "GET" and any(part in path for part in self.served.slow):
            self._drip(content, headers)
            return
        cut = self.command == "GET" and next((ending for ending in self.served.cut_once if path.endswith(ending)), None)
        if cut:
            self.served.cut_once.remove(cut)
        self._send(200, content, headers, len(content) // 2 if cut else None)

    def _drip(self, content: bytes, headers: Mapping[str, str]) -> None:
        self.served.requests.append(Request(self.command, self.path, 200))
        self.send_response(200)
        for name, value in (*headers.items(), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the client has gone
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(PAUSE)
        self.close_connection = True

    def _find(self, kind: str, repo: str, revision: str) -> tuple[Path, str]:
        """The repository's folder and commit."""
        repositories = self.served.models if kind == "models" else self.served.datasets
        if repo not in repositories:
            raise _RefusedError(404, "RepoNotFound")
        branches = {"main": repositories[repo]}
        branches |= {n.partition("@")[2]: f for n, f in self.served.revisions.items() if n.startswith(f"{repo}@")}
        for branch, folder in branches.items():
            if revision in (branch, commit_of(folder)):
                return folder, commit_of(folder)
        raise _RefusedError(404, "RevisionNotFound")

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], stop_after: int | None = None) -> None:
        self.served.requests.append(Request(self.command, self.path, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:stop_after])
        if stop_after is not None:
            self.close_connection = True


def _repositories(folder: Path) -> dict[str, Path]:
    """``owner/name`` folders, and ``name`` folders that contain files directly."""
    found: dict[str, Path] = {}
    for outer in sorted(p for p in folder.glob("*") if p.is_dir()):
        inner = [] if any(p.is_file() for p in outer.iterdir()) else sorted(p for p in outer.iterdir() if p.is_dir())
        found |= {f"{outer.name}/{p.name}": p for p in inner} or {outer.name: outer}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve FOLDER/models and FOLDER/datasets as a hub on 127.0.0.1.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0, help="port; 0: any free port")
    arguments = parser.parse_args()
    with LoopbackHub(
        _repositories(arguments.folder / "models"), _repositories(arguments.folder / "datasets"), port=arguments.port
    ) as hub:
        print(f"HF_ENDPOINT={hub.url}", *sorted([*hub.models, *hub.datasets]), sep="\n", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
