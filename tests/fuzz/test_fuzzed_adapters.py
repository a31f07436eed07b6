"""Generated adapter folders: they are loaded and give probabilities, or they are refused with a message."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounds import bounded_memory, fuzzed, outcome
from changes import changed_bytes, changed_file, one_changed
from hypothesis import given
from hypothesis import strategies as st
from test_fuzzed_models import changed_tensors, written

from loralet.config import ComputeOptions, ModelOptions
from loralet.inference.adapters import find_adapter
from loralet.inference.ensemble import load_ensemble
from loralet.inference.predictions import Prediction

TEXTS = ["a w3 w60 z", "", "x"]


def loaded(folder: Path) -> list[Prediction]:
    """The predictions of an adapter folder."""
    ensemble = load_ensemble([find_adapter(folder)], ModelOptions(), ComputeOptions("torch", "fp32"))
    return list(ensemble.predict(TEXTS))


def change(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """The changes of a file of an adapter folder, by its name. The description is also changed without checksums."""
    if name == "loralet.json":
        described: dict[str, Any] = json.loads(content)
        described.pop("sha256", None)
        return changed_file(content) | changed_file(json.dumps(described).encode())
    if name.endswith(".json"):
        return changed_file(content)
    return changed_tensors(content) if name.endswith(".safetensors") else changed_bytes(content)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files that decide what an adapter computes."""
    read = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: content for name, content in read.items() if name not in ("README.md", "tokenizer.json")}


def check(folder: Path, files: dict[str, bytes]) -> None:
    predictions = outcome(loaded, written(folder, files))
    if predictions is None:
        return
    assert len(predictions) == len(TEXTS)
    assert predictions[1].probabilities is None
    for one in (predictions[0], predictions[2]):
        assert one.probabilities is not None
        assert np.isfinite(one.probabilities).all()
        assert sum(one.probabilities) == pytest.approx(1.0, abs=1e-4)
        assert one.label is not None


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The files of adapter folders of several kinds, with and without checksums of the description."""
    from models import make_pair
    from test_adapters import RUNS, trained
    from test_damaged_adapters import FOLDERS, WORDS

    from loralet.artifacts.folder import save_artifact
    from loralet.tasks.mixing import Mixing

    place = tmp_path_factory.mktemp("adapters")
    pair = make_pair(place / "base")
    found = []
    for name in ("trained-pooler", "hybrid", "mean", "probe", "dora"):
        run, head = FOLDERS[name]
        _, _, artifact = trained(pair, RUNS[run], head)  # type: ignore[arg-type]
        if name == "hybrid":
            artifact = replace(artifact, words=WORDS, mixing=Mixing(0.5, 1.0))
        save_artifact(place / name, artifact, pair.ours)
        files = files_of(place / name)
        described = json.loads(files["loralet.json"])
        described.pop("sha256")
        found += [files, files | {"loralet.json": json.dumps(described).encode()}]
    return found


def test_any_adapter_folder_is_loaded_or_refused(tmp_path: Path, adapters: list[dict[str, bytes]]) -> None:
    for files in adapters:
        assert outcome(loaded, written(tmp_path / "adapter", files)) is not None

    @fuzzed(50)
    @given(st.one_of([one_changed(files, change) for files in adapters]))
    def case(files: dict[str, bytes]) -> None:
        check(tmp_path / "adapter", files)

    with bounded_memory():
        case()


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a PEFT adapter."""
    from models import make_pair
    from test_peft_in_and_out import base_of, by_peft

    pair = make_pair(tmp_path_factory.mktemp("peft") / "base")
    return files_of(by_peft(base_of(pair), pair.folder.with_name("adapter"))[1])


def test_any_peft_adapter_is_loaded_or_refused(tmp_path: Path, peft: dict[str, bytes]) -> None:
    assert outcome(loaded, written(tmp_path / "adapter", peft)) is not None

    @fuzzed(40)
    @given(one_changed(peft, change))
    def case(files: dict[str, bytes]) -> None:
        check(tmp_path / "adapter", files)

    with bounded_memory():
        case()
