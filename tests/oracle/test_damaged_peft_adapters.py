"""PEFT adapters of other names and older versions give PEFT's logits; damaged ones are refused with one message."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import command
from models import Pair, make_pair
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_peft_in_and_out import base_of, by_peft, compare
from torch import Tensor

from loralet.artifacts.peft_config import MOST_REPETITIONS, pattern_problem
from loralet.errors import RunError
from loralet.inference.adapters import find_adapter
from loralet.inference.predictor import load_classifier

Tensors = dict[str, Tensor]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CLASSIFIER = "base_model.model.classifier.weight"
BIAS = "base_model.model.classifier.bias"
A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
TEXT = "a w3 w60 z"
QUICK = 15
"""Seconds within which a hostile pattern must be refused; a backtracking match would take years."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("peft") / "base")


@pytest.fixture(scope="module")
def adapter(pair: Pair) -> Path:
    """A PEFT adapter."""
    return by_peft(base_of(pair), pair.folder.with_name("adapter"))[1]


def edited(folder: Path, **keys: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def rewritten(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = change(load_file(folder / WEIGHTS))
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)

    return write


def named(tensors: Tensors, name: str, original: bool = False) -> Tensors:
    """The tensors with the adapter's name, as in a state dict of the whole model and in files of older versions."""
    found: Tensors = {}
    for key, value in tensors.items():
        if "lora_" in key:
            found[key.replace(".weight", f".{name}.weight")] = value.clone()
        else:
            module, _, kind = key.rpartition(".")
            found[f"{module}.modules_to_save.{name}.{kind}"] = value.clone()
            if original:
                found[f"{module}.original_module.{kind}"] = value + 1
    return found


@pytest.mark.parametrize("name", ["default", "tickets", "v2-final"])
@pytest.mark.parametrize("original", [False, True])
def test_tensors_with_the_name_of_the_adapter_are_read(pair: Pair, tmp_path: Path, name: str, original: bool) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter")
    compare(model, folder)
    rewritten(lambda tensors: named(tensors, name, original))(folder)
    compare(model, folder)


@pytest.mark.parametrize("dora", [False, True])
def test_the_state_dict_of_the_whole_model_is_read(pair: Pair, tmp_path: Path, dora: bool) -> None:
    """As saved by ``torch.save(model.state_dict())``: with frozen weights, originals and the adapter's name."""
    model, folder = by_peft(base_of(pair), tmp_path / "adapter", use_dora=dora)
    (folder / WEIGHTS).unlink()
    own = {n: t for n, t in model.state_dict().items() if "lora_" in n or "classifier" in n}
    assert any("original_module" in name for name in own)
    assert any(".default" in name for name in own)
    torch.save(own, folder / "adapter_model.bin")
    compare(model, folder)


def test_adapters_with_names_of_their_own_are_found_in_subfolders(pair: Pair, tmp_path: Path) -> None:
    config = {"task_type": "SEQ_CLS", "r": 4, "target_modules": ["query"]}
    model = get_peft_model(base_of(pair), LoraConfig(**config), adapter_name="tickets").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / CONFIG).exists()
    assert find_adapter(tmp_path / "saved") == tmp_path / "saved" / "tickets"
    compare(model, find_adapter(tmp_path / "saved"))
    assert command(tmp_path, "predict", "saved", TEXT).returncode == 0
    assert "saved/tickets" in command(tmp_path, "inspect", "saved").stdout
    shutil.copytree(tmp_path / "saved" / "tickets", tmp_path / "saved" / "other")
    with pytest.raises(RunError, match=r"saved has the PEFT adapters other, tickets; set one of them with --run"):
        find_adapter(tmp_path / "saved")
    assert find_adapter(tmp_path / "saved", "other") == tmp_path / "saved" / "other"
    with pytest.raises(RunError, match="set one of them with --run"):
        find_adapter(tmp_path / "saved", "third")


def test_a_file_with_several_adapters_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    rewritten(lambda tensors: named(tensors, "a") | named(tensors, "b"))(tmp_path / "adapter")
    with pytest.raises(RunError, match=r"the file has several adapters \(a, b\)"):
        load_classifier(tmp_path / "adapter")


def config(words: str, /, **keys: object) -> tuple[str, Callable[[Path], None]]:
    return words, lambda folder: edited(folder, **keys)


def tensors(words: str, change: Callable[[Tensors], Tensors]) -> tuple[str, Callable[[Path], None]]:
    return words, rewritten(change)


def content(words: str, file: str, data: bytes) -> tuple[str, Callable[[Path], None]]:
    return words, lambda folder: (folder / file).write_bytes(data) and None


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "alpha of text": config("lora_alpha is 'high'", lora_alpha="high"),
    "alpha as a list": config("lora_alpha is [16]", lora_alpha=[16]),
    "alpha 0": config("lora_alpha is 0;", lora_alpha=0),
    "negative alpha": config("lora_alpha is -4", lora_alpha=-4),
    "alpha NaN": config("lora_alpha is nan", lora_alpha=float("nan")),
    "huge alpha": config("lora_alpha is 1e+300", lora_alpha=1e300),
    "alpha true": config("lora_alpha is True", lora_alpha=True),
    "dropout of text": config("lora_dropout is 'some'", lora_dropout="some"),
    "dropout 1": config("lora_dropout is 1", lora_dropout=1),
    "negative dropout": config("lora_dropout is -0.5", lora_dropout=-0.5),
    "base as a list": config("base_model_name_or_path is ['x']", base_model_name_or_path=["x"]),
    "base as a number": config("base_model_name_or_path is 7", base_model_name_or_path=7),
    "rslora of text": config("use_rslora is 'yes'", use_rslora="yes"),
    "dora as a number": config("use_dora is 1", use_dora=1),
    "initial weights as a list": config("init_lora_weights is [1]", init_lora_weights=[1]),
    "pattern as a list": config("alpha_pattern is [1]", alpha_pattern=[1]),
    "pattern of text": config("alpha_pattern['query'] is 'x'", alpha_pattern={"query": "x"}),
    "many patterns": config("alpha_pattern has 5000 entries", alpha_pattern={f"m{i}": 1 for i in range(5000)}),
    "exponential pattern": config("repeated groups", alpha_pattern={"(.*)*x": 1}),
    "no pattern": config("not a regular expression", alpha_pattern={"[": 1}),
    "long pattern": config("longer than 256", alpha_pattern={"a" * 300: 1}),
    "digits": content("not valid JSON", CONFIG, b'{"r": ' + b"9" * 5000 + b"}"),
    "deep": content("nested too deeply", CONFIG, b"[" * 100_000),
    "bytes": content("not valid JSON", CONFIG, b"\xff\xfe"),
    "a list": content("must be a JSON object", CONFIG, b"[]"),
    "empty weights": content("cannot be read as weights", WEIGHTS, b""),
    "LFS": content("Git LFS pointer", WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"),
    "1-d A": tensors("has tensors of wrong shapes (A [4]", lambda t: t | {A: t[A][:, 0]}),
    "scalar A": tensors("has tensors of wrong shapes (A []", lambda t: t | {A: torch.tensor(1.0)}),
    "empty A": tensors("has tensors of wrong shapes (A [0, 32]", lambda t: t | {A: torch.zeros(0, 32)}),
    "1-d classifier": tensors("classifier.weight has shape [4]", lambda t: t | {CLASSIFIER: t[CLASSIFIER][:, 0]}),
    "scalar bias": tensors("classifier.bias has shape []", lambda t: t | {BIAS: torch.tensor(1.0)}),
    "longer bias": tensors("classifier.bias has shape [5], expected [4]", lambda t: t | {BIAS: torch.zeros(5)}),
    "int8": tensors("has the type int8", lambda t: t | {A: t[A].to(torch.int8)}),
    "NaN": tensors("values that are not finite", lambda t: t | {A: t[A] * torch.nan}),
    "layer 9999999": tensors(
        "is not a linear layer", lambda t: {n.replace("layer.0.", "layer.9999999."): x for n, x in t.items()}
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(adapter: Path, tmp_path: Path, name: str) -> None:
    words, damage = DAMAGES[name]
    shutil.copytree(adapter, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    before = time.monotonic()
    done = command(tmp_path, "predict", "adapter", TEXT)
    assert time.monotonic() - before < QUICK
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("name", ["lora_alpha", "lora_dropout", "alpha_pattern", "use_rslora", "use_dora"])
def test_missing_values_have_pefts_defaults(adapter: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    described: dict[str, Any] = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    del described[name]
    (tmp_path / "adapter" / CONFIG).write_text(json.dumps(described))
    load_classifier(tmp_path / "adapter")


@pytest.mark.parametrize("length", [0, -5, 2, "many", None, True, float("nan")])
def test_a_length_that_cannot_be_is_ignored(adapter: Path, tmp_path: Path, length: object) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "tokenizer_config.json"
    path.write_text(json.dumps({"model_max_length": 9}))
    assert load_classifier(tmp_path / "adapter").artifact.max_length == 9
    path.write_text(json.dumps({"model_max_length": length}))
    assert load_classifier(tmp_path / "adapter").artifact.max_length == 40


@pytest.mark.parametrize(
    "pattern",
    ["(.*)*", "(a+)+$", "(a|aa)+", "(?:a*){9}", "(x+x+)+y", r"(a)\1", "(?=a*)b", "(?P<n>a)", ".*.*.*.*", "((a*)*)*"],
)
def test_patterns_of_unbounded_time_are_refused(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "query",
        r"layer\.0\.attention\.self\.query",
        r".*layer\.1\.(attention\.self\.(query|key)|output\.dense)",
        r".*\.[0-9]+\.attention.*",
        r"layer\.(?:0|1)\.output\.dense",
        r"layer\.\d\.x\)*",
    ],
)
def test_common_patterns_are_matched_quickly(pattern: str) -> None:
    assert pattern_problem(pattern) == ""


def test_the_slowest_accepted_pattern_is_quick() -> None:
    import re

    pattern = ".*" * MOST_REPETITIONS + "$x"
    assert not pattern_problem(pattern)
    before = time.monotonic()
    assert not re.match(rf"(.*\.)?({pattern})$", "bert.encoder.layer.11.attention.self.query" * 2)
    assert time.monotonic() - before < QUICK
