"""The hub client with a hub on 127.0.0.1. The client reads its environment on import, so tests use new processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from checkpoints import google, prajjwal, to_safetensors
from loopback_hub import LoopbackHub, commit_of
from stand_ins import KINDS, by_transformers

from loralet.hub.backbone import load_backbone
from loralet.hub.names import is_hub_id

PRAJJWAL = "prajjwal1/bert-tiny"
GOOGLE = "google/bert_uncased_L-2_H-128_A-2"
AG_NEWS = "fancyzhx/ag_news"
LABELS = ("World", "Sports", "Business", "Sci/Tech")
PROCESS_LIMIT = 60
"""In seconds. A process needs about three, mostly for the import of torch."""

SCRIPT = """
import json, logging, sys
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.errors import UserError
from loralet.hub.backbone import load_backbone

said = []
class Listener(logging.Handler):
    def emit(self, record):
        said.append(f"{record.levelname}: {record.getMessage()}")
logging.getLogger("loralet").addHandler(Listener())
imported_early = "huggingface_hub" in sys.modules

def model(name):
    backbone = load_backbone(name)
    return {"fingerprint": backbone.fingerprint, "parameters": backbone.parameters}

def dataset(name):
    data = load_dataset(name, Columns())
    test = data.test.read() if data.test else ()
    train = {"train": data.train.texts.to_pylist(), "numbers": data.train.targets.tolist()}
    return {"labels": data.task.labels, **train, "test": len(test)}

def outcome(load, name):
    before = len(said)
    try:
        found = load(name)
    except UserError as error:
        found = {"error": type(error).__name__, "message": str(error)}
    return found | {"said": said[before:]}

asked = json.loads(sys.argv[1])
outcomes = {name: outcome(model, name) for name in asked["models"]}
outcomes |= {name: outcome(dataset, name) for name in asked["datasets"]}
print(json.dumps({"outcomes": outcomes, "imported_early": imported_early}))
"""


@dataclass
class User:
    """A user with a cache who runs processes."""

    home: Path

    def asks(
        self, hub: str, models: Sequence[str] = (), datasets: Sequence[str] = (), **environment: str
    ) -> Mapping[str, Any]:
        """Load the names in a new process."""
        answer = json.loads(
            self.runs(hub, SCRIPT, json.dumps({"models": models, "datasets": datasets}), **environment).splitlines()[-1]
        )
        assert not answer["imported_early"]
        outcomes: Mapping[str, Any] = answer["outcomes"]
        return outcomes

    def runs(self, hub: str, script: str, *arguments: str, limit: int = PROCESS_LIMIT, **environment: str) -> str:
        """Output of a new process, which is ended after ``limit`` seconds."""
        clean = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("HF_", "HUGGING")) and not k.lower().endswith("_proxy")
        }
        own = {
            "HF_ENDPOINT": hub,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "OMP_NUM_THREADS": "1",
        }
        here = self.home.parent / "here"
        here.mkdir(exist_ok=True)
        command = [sys.executable, "-W", "error", "-c", script, *arguments]
        done = subprocess.run(
            command, env=clean | own | environment, cwd=here, capture_output=True, text=True, timeout=limit
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


def ag_news(folder: Path) -> Path:
    """A few rows with the data set's real file names and schema metadata."""
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": list(LABELS), "_type": "ClassLabel"}}
    schema = pa.schema(
        [("text", pa.string()), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    (folder / "data").mkdir(parents=True)
    for split, rows in {"train": 8, "test": 4}.items():
        table = pa.table(
            {"text": [f"{split} text number {i}" for i in range(rows)], "label": [3 - i % 4 for i in range(rows)]},
            schema=schema,
        )
        pyarrow.parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text("# AG News\n")
    return folder


def closed_port() -> str:
    with LoopbackHub() as hub:
        return hub.url


def test_published_checkpoints_and_data_are_cached_for_offline_use(user: User, tmp_path: Path) -> None:
    models = {
        PRAJJWAL: prajjwal(tmp_path / "a"),
        GOOGLE: google(tmp_path / "b"),
        "some/other": prajjwal(tmp_path / "c", seed=1),
    }
    expected = {name: load_backbone(str(folder)).fingerprint for name, folder in models.items()}
    news = ag_news(tmp_path / "d")
    (news / "train.csv").write_text("text,label\nan older form of the same,1\n")
    with LoopbackHub(models, {AG_NEWS: news}) as hub:
        online = user.asks(hub.url, list(models), ["ag_news"])
        assert {name: online[name].get("fingerprint") for name in models} == expected, online
        assert online[PRAJJWAL]["fingerprint"] == online[GOOGLE]["fingerprint"] != online["some/other"]["fingerprint"]
        assert online["ag_news"]["labels"] == list(LABELS)
        assert online["ag_news"]["train"] == [f"train text number {i}" for i in range(8)]
        assert online["ag_news"]["numbers"] == [3, 2, 1, 0, 3, 2, 1, 0]
        assert online["ag_news"]["test"] == 4
        assert not any(found["said"] for found in online.values())
        at = {name: commit_of(folder) for name, folder in models.items()}
        assert [path for path in hub.downloaded() if PRAJJWAL in path] == [
            f"/{PRAJJWAL}/resolve/{at[PRAJJWAL]}/{file}" for file in ("config.json", "pytorch_model.bin", "vocab.txt")
        ]
        assert [path for path in hub.downloaded() if GOOGLE in path] == [
            f"/{GOOGLE}/resolve/{at[GOOGLE]}/{file}" for file in ("config.json", "pytorch_model.bin", "vocab.txt")
        ]
        assert [path for path in hub.downloaded() if AG_NEWS in path] == [
            f"/datasets/{AG_NEWS}/resolve/{commit_of(news)}/data/{split}-00000-of-00001.parquet"
            for split in ("test", "train")
        ]
        assert not any("/datasets/ag_news" in request.path for request in hub.requests)
        hub.requests.clear()
        assert user.asks(hub.url, [PRAJJWAL])[PRAJJWAL] == online[PRAJJWAL]
        assert hub.requests
        assert not hub.downloaded()
        hub.broken = True
        in_trouble = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert in_trouble["fingerprint"] == online[PRAJJWAL]["fingerprint"]
        assert "503" in in_trouble["said"][0]
    down = user.asks(hub.url, list(models), ["ag_news"])
    offline = user.asks(hub.url, list(models), ["ag_news"], HF_HUB_OFFLINE="1")
    for found in (down, offline):
        assert {name: found[name].get("fingerprint") for name in models} == expected, found
        assert {k: v for k, v in found["ag_news"].items() if k != "said"} == {
            k: v for k, v in online["ag_news"].items() if k != "said"
        }
        for name in (PRAJJWAL, AG_NEWS):
            (warning,) = found[name if name in models else "ag_news"]["said"]
            assert warning.startswith("WARNING: ")
            assert name in warning
            assert "hub was not reached" in warning
            assert f"using the copy cached at {user.home}" in warning
    assert "HF_HUB_OFFLINE" in offline[PRAJJWAL]["said"][0]
    assert "HF_HUB_OFFLINE" not in down[PRAJJWAL]["said"][0]


def test_every_family_is_fetched(user: User, tmp_path: Path) -> None:
    models = {f"some/{kind}": by_transformers(tmp_path / kind, kind) for kind in KINDS}
    expected = {name: load_backbone(str(folder)).fingerprint for name, folder in models.items()}
    with LoopbackHub(models) as hub:
        found = user.asks(hub.url, list(models))
        assert {name: found[name].get("fingerprint") for name in models} == expected, found
        assert len(set(expected.values())) == len(KINDS)
        for name, folder in models.items():
            fetched = {path.split("/")[-1] for path in hub.downloaded() if f"/{name}/" in path}
            assert fetched <= {path.name for path in folder.iterdir()}
            assert {"config.json", "model.safetensors"} < fetched


def test_one_weight_file_is_fetched_and_a_new_commit_is_noticed(user: User, tmp_path: Path) -> None:
    folder = to_safetensors(prajjwal(tmp_path / "a"), keep_bin=True)
    with LoopbackHub({PRAJJWAL: folder}, cut_once={"model.safetensors"}) as hub:
        first = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert first["fingerprint"] == load_backbone(str(folder)).fingerprint
        assert not hub.cut_once  # the transfer was interrupted and started again
        assert [r.method for r in hub.requests if "model.safetensors" in r.path] == ["HEAD", "GET", "GET"]
        fetched = {path.split("/")[-1] for path in hub.downloaded()}
        assert fetched == {"config.json", "model.safetensors", "vocab.txt"}
        newer = prajjwal(tmp_path / "b", seed=1)
        hub.models = {PRAJJWAL: newer}
        second = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert second["fingerprint"] == load_backbone(str(newer)).fingerprint != first["fingerprint"]


def test_an_unfinished_download_does_not_replace_an_older_copy(user: User, tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "a")
    with LoopbackHub({PRAJJWAL: folder}, unavailable={"pytorch_model.bin"}) as hub:
        failed = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert failed["error"] == "HubError"
        assert "has no copy" in failed["message"]
        hub.unavailable = set()
        whole = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert whole["fingerprint"] == load_backbone(str(folder)).fingerprint
        hub.models, hub.unavailable = {PRAJJWAL: prajjwal(tmp_path / "b", seed=1)}, {"pytorch_model.bin"}
        kept = user.asks(hub.url, [PRAJJWAL])[PRAJJWAL]
        assert kept["fingerprint"] == whole["fingerprint"], kept
        assert "using the copy cached" in kept["said"][0]


def test_a_partial_copy_of_another_tool_is_used(user: User, tmp_path: Path) -> None:
    folder = google(tmp_path / "a")
    fetch = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:])"
    other = prajjwal(tmp_path / "b")
    (other / "README.md").write_text("a card\n")
    with LoopbackHub({GOOGLE: folder, PRAJJWAL: other}) as hub:
        user.runs(hub.url, fetch, GOOGLE, "config.json", "*.bin", "vocab.txt")
        user.runs(hub.url, fetch, PRAJJWAL, "README.md")
    found = user.asks(hub.url, [GOOGLE, PRAJJWAL], HF_HUB_OFFLINE="1")
    assert found[GOOGLE]["fingerprint"] == load_backbone(str(folder)).fingerprint
    assert found[PRAJJWAL]["error"] == "HubError"
    assert "has no copy" in found[PRAJJWAL]["message"]


def test_an_unresponsive_hub_times_out(user: User) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = user.asks(hub, [PRAJJWAL], HF_HUB_ETAG_TIMEOUT="1")
    assert found[PRAJJWAL]["error"] == "HubError"
    assert "timed out" in found[PRAJJWAL]["message"]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_neither_hub_nor_cache(user: User, offline: str) -> None:
    hub = closed_port()
    found = user.asks(hub, [PRAJJWAL], ["ag_news"], HF_HUB_OFFLINE=offline)
    for asked, repo in ((PRAJJWAL, f"model {PRAJJWAL}"), ("ag_news", f"dataset {AG_NEWS}")):
        assert found[asked]["error"] == "HubError"
        message = found[asked]["message"]
        assert repo in message
        assert hub in message
        assert str(user.home / "hub") in message
        assert "set HF_HOME" in message
        assert "or use a local" in message
        assert "the bundled " + ("tiny-en" if asked == PRAJJWAL else "news-mini") in message
        assert ("HF_HUB_OFFLINE" in message) == (offline == "1")
        assert ("onnection refused" in message) == (offline == "0"), message


def test_unusable_repositories_are_reported(user: User, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "README.md").write_text("nothing yet\n")
    no_weights = prajjwal(tmp_path / "no-weights")
    (no_weights / "pytorch_model.bin").rename(no_weights / "tf_model.h5")
    text_only = tmp_path / "text-only"
    text_only.mkdir()
    (text_only / "corpus.txt").write_text("words\n")
    models = {"me/gated": prajjwal(tmp_path / "gated"), "me/bare": bare, "me/no-weights": no_weights}
    with LoopbackHub(models, {"me/text": text_only}, gated=frozenset({"me/gated"})) as hub:
        found = user.asks(
            hub.url, ["me/unknown", "me/gated", "me/bare", "me/no-weights", "me/a--b"], ["me/text", "me/none"]
        )
    kinds = {name: outcome["error"] for name, outcome in found.items()}
    assert kinds == {name: "CheckpointError" if name == "me/no-weights" else "HubError" for name in found}
    for name, kind in (("me/unknown", "model"), ("me/none", "dataset"), ("me/a--b", "model")):
        message = found[name]["message"]
        assert repr(name) in message
        assert f"neither a local folder nor a {kind} on the hub ({hub.url})" in message
        assert "hf auth login" in message
    assert "me/gated is gated: accept its terms" in found["me/gated"]["message"]
    assert "hf auth login" in found["me/gated"]["message"]
    assert "model me/bare has none of the required files" in found["me/bare"]["message"]
    assert "README.md" in found["me/bare"]["message"]
    assert "no weights; expected model.safetensors or pytorch_model.bin" in found["me/no-weights"]["message"]
    assert "dataset me/text has none of the required files" in found["me/text"]["message"]
    assert "corpus.txt" in found["me/text"]["message"]


def test_a_local_folder_of_that_name_is_used_without_a_request(user: User, tmp_path: Path) -> None:
    local = prajjwal(tmp_path / "here" / PRAJJWAL, seed=1)
    ag_news(tmp_path / "here" / "ag_news")
    there = prajjwal(tmp_path / "there")
    with LoopbackHub({PRAJJWAL: there, GOOGLE: there}) as hub:
        found = user.asks(hub.url, [PRAJJWAL], ["ag_news"])
        assert found[PRAJJWAL]["fingerprint"] == load_backbone(str(local)).fingerprint
        assert found["ag_news"]["labels"] == list(LABELS)
        assert hub.requests == []
        assert (
            user.asks(hub.url, [GOOGLE])[GOOGLE]["fingerprint"]
            == load_backbone(str(there)).fingerprint
            != found[PRAJJWAL]["fingerprint"]
        )
        assert hub.requests


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (PRAJJWAL, True),
        ("ag_news", True),
        ("bert-base-uncased", True),
        ("a/b/c", False),
        ("./a", False),
        ("/a", False),
        ("a b", False),
        ("", False),
    ],
)
def test_the_form_of_a_hub_id(name: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(name) is expected


def test_existing_paths_are_not_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("model")
    (tmp_path / "model").mkdir()
    assert not is_hub_id("model")
