"""Pushing to a hub on 127.0.0.1: other users can load what was sent."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from checkpoints import prajjwal
from command_line import command
from loopback_hub import LoopbackHub
from loopback_hub import _Handler as Handler

from loralet import TextClassifier
from loralet.errors import ConfigError
from loralet.export.push import bare_name, contents, plan_push

TEXTS, LABELS = ["the game", "oil price", "team wins", "stock market"] * 5, ["sports", "business"] * 10
TOKEN = "hf_of_the_test"


@dataclass
class WritableHub(LoopbackHub):
    """A hub that can also create repositories and accept commits.

    Args:
        root: folder of the repositories.
        made: create requests, in order.
        commits: repository path of each commit, in order.
    """

    root: Path = Path()
    made: list[dict[str, Any]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)

    def __enter__(self) -> WritableHub:
        super().__enter__()
        hub = self

        class Writing(_Writing):
            served = hub

        self.server.RequestHandlerClass = Writing
        return self


class _Writing(Handler):
    served: WritableHub

    def do_POST(self) -> None:  # noqa: N802  # the standard library's name
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            answer: Any = {"error": "Invalid username or password."}
            return self._send(401, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        if path == "/api/repos/create":
            answer = self._create(json.loads(body))
        elif path.startswith("/api/validate-yaml"):
            answer = {"errors": [], "warnings": []}
        elif "/preupload/" in path:
            answer = {
                "files": [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
            }
        elif "/commit/" in path:
            answer = self._commit(path, body)
        else:
            return self._send(404, b"{}", {"Content-Type": "application/json"})
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Any, stop_after: int | None = None) -> None:
        super()._send(status, content, headers, stop_after)
        if self.command == "POST":
            self.wfile.write(content)

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.served.made.append(asked)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        folder = self.served.root / repo
        folder.mkdir(parents=True, exist_ok=True)
        self.served.models |= {repo: folder}  # type: ignore[operator]
        return {"url": f"{self.served.url}/{repo}", "name": repo}

    def _commit(self, path: str, body: bytes) -> dict[str, Any]:
        repo = path.removeprefix("/api/models/").split("/commit/")[0]
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                (self.served.root / repo / entry["value"]["path"]).write_bytes(content)
        self.served.commits.append(repo)
        oid = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{self.served.url}/{repo}/commit/{oid}",
            "hookOutput": "",
        }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub(root=tmp_path / "hub") as served:
        yield served


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push")
    prajjwal(folder / "tiny")
    TextClassifier(str(folder / "tiny"), rank=2, steps=4, batch_size=4).fit(TEXTS, LABELS).save(folder / "adapter")
    return folder


def elsewhere(place: Path, hub: WritableHub, home: Path, *arguments: str, token: str = TOKEN, code: str = "") -> Any:
    """Run loralet in a new process, because the hub client reads its environment on import."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    environment |= {"HF_TOKEN": token} if token else {}
    start = ["-c", code] if code else ["-m", "loralet"]
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_other_users_can_load_a_pushed_adapter(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    done = elsewhere(place, hub, tmp_path / "home", "push", "adapter", "me/mine", "--private")
    assert done.returncode == 0, done.stderr
    # the key depends on the client's version
    assert hub.made[0].get("visibility", hub.made[0].get("private")) in ("private", True)
    assert hub.commits == ["me/mine"]
    sent = {path.name: path.read_bytes() for path in (tmp_path / "hub" / "me" / "mine").iterdir()}
    mine = {path.name: path.read_bytes() for path in (place / "adapter").iterdir()}
    assert set(sent) == set(mine)
    assert {name for name in sent if sent[name] != mine[name]} == {"README.md", "loralet.json", "adapter_config.json"}
    assert b'adapter = "me/mine"' in sent["README.md"]
    code = (
        "import sys; from loralet import TextClassifier; "
        "print(TextClassifier.load('me/mine', backbone=sys.argv[1]).predict_proba(['oil price']).tolist())"
    )
    loaded = elsewhere(tmp_path, hub, tmp_path / "other home", str(place / "tiny"), code=code, token="")
    assert loaded.returncode == 0, loaded.stderr
    wanted = TextClassifier.load(place / "adapter").predict_proba(["oil price"])
    assert json.loads(loaded.stdout) == wanted.tolist()


def test_a_dry_run_lists_files_and_sends_nothing(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    done = elsewhere(place, hub, tmp_path / "home", "push", "adapter", "me/mine", "--dry-run", token="")
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    planned = plan_push(place / "adapter", "me/mine").files
    assert f"{len(planned)} files, {sum(planned.values()):,} bytes would be sent to me/mine on {hub.url}" in done.stdout
    assert "adapter_model.safetensors" in done.stdout


def test_local_paths_are_not_sent(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(place / "adapter", adapter)
    described = json.loads((adapter / "loralet.json").read_text())
    described["provenance"] |= {"source": f"{place}/secret/tickets.csv"}
    described["provenance"]["training"] |= {"class_weight": f"{place}/secret/weights.json"}
    (adapter / "loralet.json").write_text(json.dumps(described))
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert all(str(place).encode() in before[name] for name in ("loralet.json", "adapter_config.json", "README.md"))
    done = elsewhere(place, hub, tmp_path / "home", "push", str(adapter), "me/mine")
    assert done.returncode == 0, done.stderr
    sent = {path.name: path.read_bytes() for path in (tmp_path / "hub" / "me" / "mine").iterdir()}
    for name, content in sent.items():
        assert str(place).encode() not in content, name
        assert b"secret" not in content, name
    told = json.loads(sent["loralet.json"])
    training = described["provenance"]["training"] | {"class_weight": "weights.json"}
    provenance = described["provenance"] | {"source": "tickets.csv", "training": training}
    assert told == described | {"backbone": "tiny", "provenance": provenance}
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "tiny"
    assert b'backbone = "tiny"' in sent["README.md"]
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before  # the local files are unchanged
    assert sum(plan_push(adapter, "me/mine").files.values()) == sum(map(len, sent.values()))


def test_an_export_contains_no_local_path(place: Path, tmp_path: Path) -> None:
    for kind in ("hf", "safetensors-bundle"):
        flags = ["--out", str(tmp_path / kind), "--push", "me/mine", "--dry-run", *(["--no-onnx"] * (kind == "hf"))]
        done = command(place, "export", "adapter", "--to", kind, *flags)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr  # the export is self-contained
        for name, content in contents(tmp_path / kind, "me/mine").items():
            assert str(place).encode() not in content, name


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("/home/me/models/tiny", "tiny"),
        ("./tiny/", "tiny"),
        ("../x", "x"),
        ("C:\\Users\\me\\tiny", "tiny"),
        ("prajjwal1/bert-tiny", "prajjwal1/bert-tiny"),
        ("ag_news", "ag_news"),
        ("tiny-en", "tiny-en"),
        ("data/tickets.csv", "tickets.csv"),
        ("data/weights.json", "weights.json"),
        ("balanced", "balanced"),
        ("rows given in Python", "rows given in Python"),
    ],
)
def test_a_path_becomes_its_last_part_and_a_hub_id_stays(name: str, bare: str) -> None:
    assert bare_name(name) == bare


def test_a_local_backbone_gives_a_warning(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    for flags in (["--dry-run"], []):
        done = elsewhere(place, hub, tmp_path / "home", "push", "adapter", "me/mine", *flags)
        assert done.returncode == 0, done.stderr
        assert "warning: the backbone tiny is a local folder" in done.stderr
        assert "--to safetensors-bundle" in done.stderr
    adapter = tmp_path / "adapter"
    shutil.copytree(place / "adapter", adapter)
    for name in ("prajjwal1/bert-tiny", "tiny-en"):  # which is bundled with loralet
        described = json.loads((adapter / "loralet.json").read_text())
        (adapter / "loralet.json").write_text(json.dumps(described | {"backbone": name}))
        assert not plan_push(adapter, "me/mine").warning


def test_a_missing_backbone_message_names_the_option(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    assert elsewhere(place, hub, tmp_path / "home", "push", "adapter", "me/mine").returncode == 0
    (tmp_path / "empty").mkdir()
    done = elsewhere(
        tmp_path / "empty",
        hub,
        tmp_path / "other home",
        "predict",
        "me/mine",
        "oil price",
        "--format",
        "jsonl",
        token="",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "'tiny' is neither a local folder nor a model on the hub" in done.stderr
    assert "set --backbone (backbone=... in Python)" in done.stderr
    flags = ("oil price", "--format", "jsonl", "--backbone", str(place / "tiny"))
    done = elsewhere(tmp_path / "empty", hub, tmp_path / "other home", "predict", "me/mine", *flags, token="")
    assert done.returncode == 0, done.stderr
    wanted = TextClassifier.load(place / "adapter").predict_proba(["oil price"])[0]
    assert list(json.loads(done.stdout)["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-6)


def test_an_export_is_pushed(place: Path, hub: WritableHub, tmp_path: Path) -> None:
    done = elsewhere(
        place, hub, tmp_path / "home", "export", "adapter", "--out", str(tmp_path / "bundle"), "--push", "me/bundle"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hub" / "me" / "bundle" / "model.safetensors").read_bytes() == (
        tmp_path / "bundle" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(("token", "words"), [("", "no token for the hub"), ("hf_wrong", "could not be written")])
def test_without_a_valid_token_nothing_is_sent(
    place: Path, hub: WritableHub, tmp_path: Path, token: str, words: str
) -> None:
    done = elsewhere(place, hub, tmp_path / "home", "push", "adapter", "me/mine", token=token)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.commits == []


def test_invalid_repository_names_are_rejected(place: Path) -> None:
    for name in ("mine", "a/b/c", "me/", "./x"):
        with pytest.raises(ConfigError, match="owner/name"):
            plan_push(place / "adapter", name)
    assert command(place, "push", "tiny", "me/mine").returncode == 2  # a base model is not pushed as an adapter


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_folder_is_not_sent(place: Path, tmp_path: Path, content: bytes) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(place / "adapter", adapter)
    (adapter / "loralet.json").write_bytes(content)
    done = command(tmp_path, "push", "adapter", "me/tickets", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("loralet: adapter: a JSON file or the card cannot be read")
