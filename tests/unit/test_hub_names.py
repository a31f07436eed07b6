"""Revisions and folders of repositories: which files are taken, what is recorded, and names that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import prajjwal
from loopback_hub import LoopbackHub, commit_of
from models import Pair, make_pair
from test_adapters import RUNS, trained
from test_hub import User, closed_port
from test_peft_in_and_out import base_of, by_peft

from loralet.artifacts.artifact import Provenance
from loralet.artifacts.folder import save_artifact
from loralet.hub.backbone import load_backbone
from loralet.hub.models import resolve_model
from loralet.hub.names import HubName, is_hub_id, parse_name, pinned
from loralet.hub.names import commit_of as commit_in

BASE = "me/base"
SCRIPT = """
import json, logging, sys
from pathlib import Path
from loralet.config import ModelOptions
from loralet.errors import UserError
from loralet.hub.checkpoint import read_checkpoint
from loralet.inference.adapters import find_adapter, read_adapter

said = []
class Listener(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("loralet").addHandler(Listener())

def model(name):
    read = read_checkpoint(name)
    return {"fingerprint": read.fingerprint, "commit": read.commit}

def adapter(name):
    opened = read_adapter(find_adapter(Path(name)), ModelOptions())
    return {"fingerprint": opened.checkpoint.fingerprint, "name": opened.checkpoint.name, "id": opened.artifact.id}

found = {}
for kind, names in json.loads(sys.argv[1]).items():
    for name in names:
        said.clear()
        try:
            found[name] = {"model": model, "adapter": adapter}[kind](name)
        except UserError as error:
            found[name] = {"error": type(error).__name__, "message": str(error)}
        found[name]["said"] = list(said)
print(json.dumps(found))
"""


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


def asked(user: User, hub: str, model: list[str], adapter: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(user.runs(hub, SCRIPT, json.dumps({"model": model, "adapter": adapter})))
    return answer


def adapter_of(pair: Pair, folder: Path, name: str, commit: str) -> str:
    """An adapter folder whose backbone has a name on the hub."""
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    artifact = replace(artifact, backbone=name, provenance=Provenance(backbone_commit=commit))
    save_artifact(folder, artifact, pair.ours)
    return str(folder)


def test_revisions_of_backbones_and_adapters(user: User, tmp_path: Path) -> None:
    """A branch, a commit and the newest revision; a backbone that changed after training; adapters in folders."""
    newest = prajjwal(tmp_path / "newest")
    pair = make_pair(tmp_path / "older")
    older, fingerprint = pair.folder, pair.ours.fingerprint
    first = adapter_of(pair, tmp_path / "first", BASE, commit_of(older))
    second = adapter_of(pair, tmp_path / "second", f"{BASE}@v1", "")
    third = adapter_of(pair, tmp_path / "third", BASE, "")
    config = json.loads((tmp_path / "second" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, "v1")
    inner = by_peft(base_of(pair), tmp_path / "shelf" / "tickets")[1]
    described = json.loads((inner / "adapter_config.json").read_text())
    changed = described | {"base_model_name_or_path": BASE, "revision": "v1"}
    (inner / "adapter_config.json").write_text(json.dumps(changed))
    places = {BASE: newest, "me/shelf": tmp_path / "shelf", "me/plain": tmp_path / "first"}
    names = [BASE, f"{BASE}@v1", f"{BASE}@{commit_of(older)}", f"{BASE}@absent"]
    adapters = [first, second, third, "me/shelf", "me/shelf/tickets", "me/shelf@main/tickets", "me/plain@main"]
    with LoopbackHub(places, revisions={f"{BASE}@v1": older}) as hub:
        found = asked(user, hub.url, names, adapters)
    assert found[BASE]["commit"] == commit_of(newest)
    assert found[BASE]["fingerprint"] == load_backbone(str(newest)).fingerprint != fingerprint
    for name in names[1:3]:
        assert (found[name]["commit"], found[name]["fingerprint"]) == (commit_of(older), fingerprint)
    assert found[names[3]]["error"] == "HubError"
    assert "has no branch, tag or commit 'absent'" in found[names[3]]["message"]
    assert found[first]["name"] == f"{BASE}@{commit_of(older)}"
    assert f"{BASE} has changed on the hub; using {BASE}@{commit_of(older)}" in found[first]["said"][0]
    assert found[second]["fingerprint"] == fingerprint
    assert "trained on another model" in found[third]["message"]
    assert (
        "me/shelf has adapters in folders (tickets); give one of them: me/shelf/tickets"
        in (found["me/shelf"]["message"])
    )
    for name in adapters[4:6]:
        assert (found[name]["fingerprint"], found[name]["id"]) == (fingerprint, "tickets")
    assert found["me/plain@main"]["fingerprint"] == fingerprint
    again = asked(user, closed_port(), [f"{BASE}@v1", f"{BASE}@v2"], ["me/shelf/tickets"])
    assert again[f"{BASE}@v1"]["fingerprint"] == fingerprint
    assert again["me/shelf/tickets"]["fingerprint"] == fingerprint
    assert f"model {BASE}@v2 is not available" in again[f"{BASE}@v2"]["message"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b", HubName("a/b")),
        ("a", HubName("a")),
        ("a/b@v1.0", HubName("a/b", "v1.0")),
        ("a/b@feature%2Fx/c/d", HubName("a/b", "feature/x", "c/d")),
        ("a/b@refs/pr/7", HubName("a/b", "refs/pr/7")),
        ("a/b/c", HubName("a/b", "", "c")),
        ("a@" + "0" * 40, HubName("a", "0" * 40)),
    ],
)
def test_names_have_parts(name: str, parts: HubName) -> None:
    assert parse_name(name) == parts
    assert str(parts) == name
    assert is_hub_id(name) is not bool(parts.folder)


@pytest.mark.parametrize(
    "name",
    ["a/b@", "a/b@..", "a/b@%2e%2e", "a/b@x%2F..%2Fy", "a/b@%00", "a/b@x%5C..", "../a", "a/../b", "a/b/..", "/a/b",
     "a/b@v1@v2", "a//b", "a/b@v1/", "a/b@ v1", "@v1", "a/b@.hidden"],
)  # fmt: skip
def test_names_that_leave_the_repository_are_none(name: str) -> None:
    assert parse_name(name) is None
    assert not is_hub_id(name)


def test_short_names_and_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("minilm-l6@main") == "sentence-transformers/all-MiniLM-L6-v2@main"
    assert pinned("a/b", "v1") == "a/b@v1"
    assert pinned("a/b", "x/y") == "a/b@x%2Fy"
    for name, revision in (("a/b", ""), ("a/b", "main"), ("a/b@v1", "v2"), ("./a", "v1"), ("a/b/c", "v1")):
        assert pinned(name, revision) == name
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert pinned("a/b", "v1") == "a/b"
    assert commit_in(Path("models--a--b/snapshots") / ("0" * 40) / "x") == "0" * 40
    assert commit_in(Path("a/b")) == ""
