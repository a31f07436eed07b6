"""Output of ``loralet inspect`` for models, adapters, run folders and data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import bert_tensors, google, prajjwal
from command_line import command
from safetensors.torch import load_file, save_file

from loralet import TextClassifier
from loralet.errors import RunError
from loralet.report.inspection import compare, inspect_path
from loralet.report.inspection_table import cell

TEXTS, LABELS = ["the game", "oil price", "team wins", "stock market"] * 5, [1, 0, 1, 0] * 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two names of one model, one of another, an adapter, a run and a data set."""
    folder = tmp_path_factory.mktemp("inspect")
    prajjwal(folder / "tiny")
    google(folder / "same")
    prajjwal(folder / "other", seed=1)
    TextClassifier(str(folder / "tiny"), rank=2, steps=4, batch_size=4, targets=("query",)).fit(TEXTS, LABELS).save(
        folder / "adapter"
    )
    (folder / "data").mkdir()
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (folder / "data" / "train.csv").write_text("text,label\n" + rows)
    (folder / "data" / "test.csv").write_text("text,label\nthe cup,1\nnew oil,0\n")
    flags = ["--rank", "2", "--steps", "4", "--batch-size", "4", "--out", "run", "--quiet"]
    assert command(folder, "train", "data", "--model", "tiny", *flags).returncode == 0
    return folder


def facts(place: Path, *paths: str) -> dict[str, list[dict[str, dict[str, object]]]]:
    done = command(place, "inspect", *paths, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_model(place: Path) -> None:
    (found,) = facts(place, "tiny")["found"]
    assert found["kind"] == "model"
    assert (
        found["architecture"] | {"type": "bert", "layers": 2, "width": 32, "heads": 2, "pooler": True}
        == found["architecture"]
    )
    tensors = {
        n: t
        for n, t in bert_tensors({**json.loads((place / "tiny" / "config.json").read_text())}).items()
        if n.startswith("bert.")
    }
    total = sum(t.numel() for n, t in tensors.items() if not n.endswith("position_ids"))
    assert found["parameters"]["all"] == total
    assert sum(int(str(n)) for part, n in found["parameters"].items() if part != "all") == total
    assert found["vocabulary"] == {"tokens": 200, "embedding rows": 200, "longest text (tokens)": 64}
    assert set(found["files"]) == {"config.json", "pytorch_model.bin", "vocab.txt"}


def test_an_adapter(place: Path) -> None:
    (found,) = facts(place, "adapter")["found"]
    assert found["kind"] == "adapter"
    assert (found["adapter"]["rank"], found["adapter"]["targets"]) == (2, "query")
    assert (found["adapter"]["method"], found["adapter"]["task"]) == ("lora", "single-label")
    assert found["labels"] == {"0": "0", "1": "1"}
    assert found["parameters"] == {"layers": 2 * 2 * (32 + 32), "classifier": 2 * 32 + 2, "all": 256 + 66}
    assert (found["training"]["steps"], found["training"]["train_rows"]) == (4, 10)
    assert found["validation scores"]["rows"] == 10
    tiny, other = (facts(place, name)["found"][0]["architecture"]["fingerprint"] for name in ("tiny", "other"))
    assert tiny == found["adapter"]["backbone fingerprint"] != other


def test_a_run_folder_and_a_data_set(place: Path) -> None:
    run, data = facts(place, "run", "data")["found"]
    assert (run["kind"], data["kind"]) == ("run folder", "data set")
    assert (
        run["run folder"] | {"kind": "train", "task": "single-label", "runs": 1, "test reads": 1} == run["run folder"]
    )
    assert run["data"]["fingerprint"] == data["data set"]["fingerprint"]
    assert run["run folder"]["classifier"] in run["out-of-fold accuracy"]
    assert (data["train"]["rows"], data["train"]["rows of 0"], data["test"]["rows"]) == (20, 10, 2)
    assert data["train"]["characters, longest"] == len("stock market")
    # inspecting does not count as a test read
    assert json.loads((place / "run" / "results.json").read_text())["test_reads"] == 1


def test_two_names_of_one_model(place: Path) -> None:
    (pair,) = facts(place, "tiny", "same")["comparisons"]
    assert (pair["encoders_equal"], pair["differing"]) == (True, [])
    assert (
        "the encoders' weights are equal (39 of 39 tensors bitwise equal)"
        in command(place, "inspect", "tiny", "same").stdout
    )


def test_one_different_value_is_reported_with_its_tensor(place: Path, tmp_path: Path) -> None:
    prajjwal(tmp_path / "nudged")
    tensors = torch.load(tmp_path / "nudged" / "pytorch_model.bin", weights_only=True)
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 5] += 0.25
    torch.save(tensors, tmp_path / "nudged" / "pytorch_model.bin")
    (pair,) = facts(place, "tiny", str(tmp_path / "nudged"))["comparisons"]
    assert not pair["encoders_equal"]
    (difference,) = pair["differing"]
    assert (difference["tensor"], difference["first"]) == ("layers.1.output.weight", "32x128")
    assert difference["largest"] == pytest.approx(0.25)
    shown = command(place, "inspect", "tiny", str(tmp_path / "nudged")).stdout
    shown = " ".join(shown.split())
    assert "weights differ (38 of 39 tensors" in shown
    assert "layers.1.output.weight" in shown


def test_models_of_other_sizes_or_without_a_pooler(place: Path, tmp_path: Path) -> None:
    from checkpoints import bert_config

    prajjwal(tmp_path / "wide", config=bert_config(width=64))
    wide = compare(inspect_path(str(place / "tiny")), inspect_path(str(tmp_path / "wide")))
    assert all(d.largest is None and d.first != d.second for d in wide.differing)
    assert not wide.encoders_equal
    prajjwal(tmp_path / "bare")
    tensors = torch.load(tmp_path / "bare" / "pytorch_model.bin", weights_only=True)
    save_file({n: t.clone() for n, t in tensors.items() if "pooler" not in n}, tmp_path / "bare" / "model.safetensors")
    assert load_file(tmp_path / "bare" / "model.safetensors")
    bare = compare(inspect_path(str(place / "tiny")), inspect_path(str(tmp_path / "bare")))
    assert [(d.tensor, d.second) for d in bare.differing] == [("pooler.weight", "–"), ("pooler.bias", "–")]
    assert bare.encoders_equal


def test_the_table_shows_every_kind(place: Path) -> None:
    shown = command(place, "inspect", "tiny", "adapter", "run", "data").stdout
    for words in (
        "tiny: model",
        "adapter: adapter",
        "run: run folder",
        "data: data set",
        "feed-forward",
        "labels",
        "fingerprint",
        "pooler",
    ):
        assert words in shown


def test_invalid_paths_are_reported(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not an adapter, a model or a data set"):
        inspect_path(str(place / "nowhere"))
    (tmp_path / "empty").mkdir()
    for path in (str(tmp_path / "empty"), "nowhere.csv"):
        done = command(place, "inspect", path)
        assert done.returncode == 2
        assert path in done.stderr
    assert "paths is empty" in command(place, "inspect").stderr


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "yes"), (1234567, "1,234,567"), (0.5, "0.5"), (None, "–"), (["a", 2], "a 2"), ("x", "x")],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown
