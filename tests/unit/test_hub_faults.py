"""Failing and hostile hubs: clear messages, retries, and nothing outside the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import prajjwal
from loopback_hub import LoopbackHub
from test_hub import PRAJJWAL, PROCESS_LIMIT, User, ag_news

from loralet.errors import HubError
from loralet.hub.answers import failure, guard_metadata, safe_commit, safe_names
from loralet.hub.backbone import load_backbone

TOKEN = "hf_" + "x" * 34


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_statuses_and_malformed_answers_are_named(user: User, tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "model")
    statuses = {"me/s401": 401, "me/s403": 403, "me/s404": 404, "me/s429": 429, "me/s500": 500, "me/s418": 418}
    malformed = {"me/words": b"busy, come back later", "me/list": b"[1, 2]", "me/empty": b""}
    names = [*statuses, *malformed, "me/cut"]
    with LoopbackHub(dict.fromkeys(names, folder), statuses=statuses, malformed=malformed) as hub:
        found = user.asks(hub.url, names[:-1])
    for name in names[:-1]:
        assert found[name].get("error") == "HubError", found[name]
        message = found[name]["message"]
        assert name in message
        assert hub.url in message
        if name in malformed:
            assert "gave an answer that is not valid" in message
            assert "not reached" not in message
    assert (
        "answered with status 401: the login is missing or not valid; log in with `hf auth login`"
        in (found["me/s401"]["message"])
        or "log in with `hf auth login`" in found["me/s401"]["message"]
    )
    assert "log in with `hf auth login`" in found["me/s403"]["message"]
    assert "answered with status 429: too many requests; try again later" in found["me/s429"]["message"]
    assert "answered with status 500: try again later" in found["me/s500"]["message"]
    assert "answered with status 418" in found["me/s418"]["message"]


def test_a_download_that_fails_once_is_tried_again(user: User, tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "model")
    with LoopbackHub({PRAJJWAL: folder}, cut_once={"pytorch_model.bin", "vocab.txt"}) as hub:
        found = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
    assert found.get("fingerprint") == load_backbone(str(folder)).fingerprint, found
    assert not hub.cut_once


@pytest.mark.parametrize("what", ["etag", "commit", "names"])
def test_a_hostile_hub_writes_nothing_outside_the_cache(user: User, tmp_path: Path, what: str) -> None:
    folder, news = prajjwal(tmp_path / "model"), ag_news(tmp_path / "data")
    evil = "../" * 8 + str(tmp_path / "evil").lstrip("/")
    options: dict[str, Any] = {
        "etag": {"etag": evil},
        "commit": {"commit": evil},
        "names": {"listed": (f"{evil}.csv", "data/../../../../evil.csv", f"/{evil}.csv", "..\\evil.csv")},
    }[what]
    user.home.mkdir()
    before = files_in(tmp_path)
    with LoopbackHub({PRAJJWAL: folder}, {"me/news": news}, **options) as hub:
        found = user.asks(hub.url, [PRAJJWAL], ["me/news"])
    written = {name for name in files_in(tmp_path) - before if not name.startswith(("home/", "here"))}
    assert written == set()
    assert not (tmp_path / "evil").exists()
    if what == "names":
        assert "error" not in found[PRAJJWAL]
        assert "error" not in found["me/news"]
        assert not any("evil" in path for path in hub.downloaded())
    else:
        for name in (PRAJJWAL, "me/news"):
            assert found[name]["error"] == "HubError"
            assert "which is not one; nothing was downloaded" in found[name]["message"]
        assert not hub.downloaded()


def test_a_redirect_to_another_host_does_not_get_the_token(user: User, tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "model")
    with LoopbackHub({PRAJJWAL: folder}) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        with LoopbackHub({PRAJJWAL: folder}, elsewhere=elsewhere) as hub:
            found = user.asks(hub.url, [PRAJJWAL], HF_TOKEN=TOKEN)[PRAJJWAL]
    assert found.get("fingerprint") == load_backbone(str(folder)).fingerprint, found
    assert f"Bearer {TOKEN}" in hub.tokens
    assert len(other.requests) == 3
    assert set(other.tokens) == {None}


@pytest.mark.parametrize(
    ("etag", "commit", "right"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e", "0" * 40, True),
        ("abc-12.3", "0" * 40, True),
        (None, None, True),
        ("../x", "0" * 40, False),
        ("a/b", "0" * 40, False),
        ("a\\b", "0" * 40, False),
        ("..", "0" * 40, False),
        (".hidden", "0" * 40, False),
        ("", "0" * 40, False),
        ("x" * 300, "0" * 40, False),
        ("a\0b", "0" * 40, False),
        ("abc", "../../x", False),
        ("abc", "main", False),
    ],
)
def test_etags_and_commits_that_are_no_names_are_refused(
    monkeypatch: pytest.MonkeyPatch, etag: str | None, commit: str | None, right: bool
) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(
        file_download, "get_hf_file_metadata", lambda url: SimpleNamespace(etag=etag, commit_hash=commit)
    )
    guard_metadata()
    guard_metadata()
    if right:
        assert file_download.get_hf_file_metadata("x").etag == etag
    else:
        with pytest.raises(HubError, match="nothing was downloaded"):
            file_download.get_hf_file_metadata("x")


def test_names_outside_the_folder_are_dropped() -> None:
    safe = ["config.json", "data/train-00000-of-00001.parquet", "a..b/c.txt", ".gitattributes"]
    strange = ["../x", "a/../../x", "/etc/passwd", "a//b", "./x", "a\\..\\b", "C:/x", "a/\x1b[2J", ""]
    assert safe_names([*safe, *strange]) == safe
    for commit in (None, 7, "", "../x", "z" * 40):
        with pytest.raises(HubError, match="which is not one"):
            safe_commit(commit)


def test_the_reason_of_a_failure() -> None:
    assert failure(ConnectionError("refused")) == "was not reached (refused)"
    assert failure(OSError()) == "was not reached (OSError)"
    assert failure(json.JSONDecodeError("Expecting value", "x", 0)).startswith("gave an answer that is not valid")
    assert "not valid" in failure(OSError("Consistency check failed: file should be of size 3"))
    error = OSError("Server Error\nsecond line")
    error.response = SimpleNamespace(status_code=503)  # type: ignore[attr-defined]
    outer = OSError("cannot find the file")
    outer.__cause__ = error
    assert failure(outer) == "answered with status 503: try again later (cannot find the file)"


def test_slow_incomplete_and_altered_files_are_not_used(user: User, tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "model")
    names = ["me/slow", "me/longer"]
    started = time.monotonic()
    with LoopbackHub(dict.fromkeys(names, folder), slow={"slow/resolve"}, longer={"longer/resolve"}) as hub:
        found = user.asks(hub.url, names, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert time.monotonic() - started < PROCESS_LIMIT
    assert "sends too slowly" in found["me/slow"]["message"]
    assert "gave an answer that is not valid (Consistency check failed" in found["me/longer"]["message"]
    with LoopbackHub(dict.fromkeys(["me/altered", *names], folder), etags={"altered/resolve": "0" * 64}) as hub:
        found = user.asks(hub.url, ["me/altered", *names])
    assert "another SHA-256" in found["me/altered"]["message"]
    assert not list(user.home.rglob("0" * 64))
    for name in names:
        assert found[name].get("fingerprint") == load_backbone(str(folder)).fingerprint, found
