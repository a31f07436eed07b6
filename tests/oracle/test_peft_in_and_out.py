"""PEFT adapters give the same logits in loralet; loralet adapters load in PEFT with the snippet of their card."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import command
from models import CLASSES, Pair, batch, make_pair
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from stand_ins import KINDS, STAND_INS, by_transformers, write_byte_level
from test_adapters import LABELS, RUNS, trained
from tolerances import FP32
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from loralet import TextClassifier
from loralet.artifacts.artifact import is_head
from loralet.artifacts.card import card as card_of
from loralet.artifacts.card import for_hub
from loralet.artifacts.folder import add_metrics, carried_by_peft, load_artifact, save_artifact
from loralet.backends.batch import batch_of
from loralet.errors import HubError, RunError
from loralet.export.checkpoint import export_bundle, export_hf
from loralet.inference.adapters import find_adapter
from loralet.inference.predictor import load_classifier, ready
from loralet.models.heads import classify, first_token, pool
from loralet.tasks.base import Scores


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(
        tmp_path / "base", id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)}
    )


def base_of(pair: Pair) -> Any:
    """Load the base with from_pretrained, so that PEFT records its path."""
    return BertForSequenceClassification.from_pretrained(pair.folder).eval()


def by_peft(base: Any, folder: Path, **options: Any) -> tuple[Any, Path]:
    """Save a PEFT adapter with random tensors, as if trained."""
    options = {"task_type": "SEQ_CLS", "r": 4, "lora_alpha": 16, "target_modules": ["query", "value"]} | options
    model = get_peft_model(base, LoraConfig(**options)).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model, folder


def compare(model: Any, folder: Path) -> None:
    """Check that our logits equal PEFT's and differ from the base's."""
    ids, lengths, mask, _ = batch()
    ours = load_classifier(folder).forward(batch_of(ids, lengths))[0]
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask).logits
        with model.disable_adapter():
            base = model(ids, attention_mask=mask).logits
    assert (ours - theirs).abs().max() <= FP32
    assert (ours - base).abs().max() > 1e-2


ENCODER_LAYER = r".*layer\.1\.(attention\.self\.(query|key)|output\.dense)"
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank 1": {"r": 1, "lora_alpha": 3},
    "rslora": {"r": 8, "use_rslora": True},
    "all-linear": {"target_modules": "all-linear"},
    "all-linear rslora": {"target_modules": "all-linear", "use_rslora": True, "r": 3},
    "regex": {"target_modules": ENCODER_LAYER},
    "feed-forward": {"target_modules": ["intermediate.dense", "output.dense"]},
    "one layer": {"layers_to_transform": [1]},
    "rank pattern": {
        "target_modules": ["query", "key", "value"],
        "rank_pattern": {"query": 2, r"layer\.1\.attention\.self\.key": 7},
    },
    "alpha pattern": {"alpha_pattern": {r"layer\.0\.attention\.self\.query": 1, "value": 40}},
    "both patterns rslora": {"rank_pattern": {"query": 6}, "alpha_pattern": {"query": 5}, "use_rslora": True},
    "dropout": {"lora_dropout": 0.3},
    "pooler saved": {"modules_to_save": ["classifier", "pooler"]},
    "pooler adapted": {"target_modules": ["query", "pooler.dense"]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "dora": {"use_dora": True, "lora_dropout": 0.3},
    "dora all-linear rslora": {"use_dora": True, "target_modules": "all-linear", "use_rslora": True, "r": 3},
    "dora one layer": {"use_dora": True, "layers_to_transform": [1]},
    "dora patterns": {"use_dora": True, "rank_pattern": {"query": 6}, "alpha_pattern": {"query": 5}},
    "dora pooler adapted": {"use_dora": True, "target_modules": ["query", "pooler.dense"]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_peft_adapters_give_the_same_logits(pair: Pair, tmp_path: Path, name: str) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter", **CONFIGS[name])
    compare(model, folder)
    assert load_classifier(folder).artifact.labels == LABELS


def test_an_ignored_pattern_changes_the_logits(pair: Pair, tmp_path: Path) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter", **CONFIGS["alpha pattern"])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"alpha_pattern": {}}))
    with pytest.raises(AssertionError):
        compare(model, folder)


def test_roberta_with_a_trained_pooler_as_head(tmp_path: Path) -> None:
    torch.manual_seed(2)
    (tmp_path / "base").mkdir()
    rows = write_byte_level(tmp_path / "base")
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 42,
    }
    config = RobertaConfig(
        vocab_size=rows, num_labels=CLASSES, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "base")
    base = RobertaForSequenceClassification.from_pretrained(tmp_path / "base").eval()
    model, folder = by_peft(base, tmp_path / "adapter")
    compare(model, folder)


def test_the_classifier_is_read_from_the_base_if_the_adapter_has_none(pair: Pair, tmp_path: Path) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter", task_type=None)
    assert not any("classifier" in name for name in torch_names(folder))
    compare(model, folder)


def torch_names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return list(file.keys())


def test_label_names_default_to_those_of_the_base(pair: Pair, tmp_path: Path) -> None:
    _, folder = by_peft(base_of(pair), tmp_path / "adapter")
    assert TextClassifier.load(folder, labels=("a", "b", "c", "d")).classes_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(RunError, match="3 label names are given"):
        TextClassifier.load(folder, labels=("a", "b", "c"))
    config = json.loads((pair.folder / "config.json").read_text())
    config.pop("id2label")
    (pair.folder / "config.json").write_text(json.dumps(config))
    assert load_classifier(folder).artifact.labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")


@pytest.mark.parametrize("name", ["both patterns rslora", "dora one layer"])
def test_a_peft_adapter_is_saved_as_a_loralet_adapter(pair: Pair, tmp_path: Path, name: str) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter", **CONFIGS[name])
    TextClassifier.load(folder).save(tmp_path / "ours")
    compare(model, tmp_path / "ours")
    base = BertForSequenceClassification.from_pretrained(pair.folder)
    ids, _, mask, _ = batch()
    with torch.no_grad():
        again = PeftModel.from_pretrained(base, tmp_path / "ours").eval()(ids, attention_mask=mask).logits
        assert (again - model(ids, attention_mask=mask).logits).abs().max() <= FP32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True, "bias": "lora_only"}, "bias is 'lora_only'"),
        ({"use_dora": True, "target_modules": ["query", "word_embeddings"]}, "word_embeddings"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "a bias on B"),
        ({"target_modules": ["query", "word_embeddings"]}, "word_embeddings"),
        ({"trainable_token_indices": [3]}, "trained token embeddings"),
        ({"modules_to_save": ["classifier", "LayerNorm"]}, "LayerNorm"),
        ({"init_lora_weights": "pissa", "target_modules": ["query"]}, "'pissa'"),
        ({"task_type": "TOKEN_CLS"}, "TOKEN_CLS"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_an_unsupported_configuration_is_rejected(
    pair: Pair, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    _, folder = by_peft(base_of(pair), tmp_path / "adapter", **options)
    with pytest.raises(RunError, match="cannot be loaded") as caught:
        load_classifier(folder)
    assert words in str(caught.value)


def test_other_peft_types_are_rejected(pair: Pair, tmp_path: Path) -> None:
    get_peft_model(base_of(pair), LoHaConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(
        tmp_path / "loha"
    )
    with pytest.raises(RunError, match="peft_type is LOHA"):
        load_classifier(tmp_path / "loha")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["in the adapter", "in the base"])
def test_every_family_in_and_out(tmp_path: Path, kind: str, where: str) -> None:
    form = AutoModelForSequenceClassification
    base = form.from_pretrained(by_transformers(tmp_path / "plain", kind), num_labels=CLASSES)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.add_((0.2 if "classifier" in name else 0.1) * torch.randn_like(parameter))
    base.save_pretrained(tmp_path / "base")  # with its head, from which parts that PEFT does not save are read
    for path in (tmp_path / "plain").iterdir():
        if not (tmp_path / "base" / path.name).exists():
            (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    base = form.from_pretrained(tmp_path / "base").eval()
    task_type = "SEQ_CLS" if where == "in the adapter" else None
    model, folder = by_peft(base, tmp_path / "adapter", target_modules=[STAND_INS[kind].adapted], task_type=task_type)
    assert any("classifier" in name for name in torch_names(folder)) == (where == "in the adapter")
    compare(model, folder)
    loaded = load_classifier(folder)
    assert loaded.artifact.pooling == loaded.backbone.family.head.pooling
    ids, lengths, mask, _ = batch()
    TextClassifier.load(folder).save(tmp_path / "ours")
    compare(model, tmp_path / "ours")
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask).logits
        assert (logits_by_peft(tmp_path / "base", tmp_path / "ours", ids, mask) - theirs).abs().max() <= FP32
        own = loaded.artifact.pooling
        pooling = replace(own, activation="relu" if own.activation == "tanh" else "tanh")
        other = ready(replace(loaded.artifact, pooling=pooling), loaded.backbone).forward(batch_of(ids, lengths))[0]
        assert (other - theirs).abs().max() > 1e-3  # the activation matters
        export_hf(loaded.artifact, loaded, tmp_path / "hf")
        merged = form.from_pretrained(tmp_path / "hf").eval()
        assert (merged(ids, attention_mask=mask).logits - theirs).abs().max() <= FP32
    export_bundle(loaded.artifact, loaded, tmp_path / "bundle")
    compare(model, tmp_path / "bundle")


def logits_by_peft(base: Path, folder: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """Logits of an adapter folder of ours in PEFT; a head that PEFT cannot hold is computed from the folder's file."""
    artifact = load_artifact(folder)
    whole = carried_by_peft(artifact)
    model = (AutoModelForSequenceClassification if whole else AutoModel).from_pretrained(base)
    found = PeftModel.from_pretrained(model, folder).eval()(input_ids=ids, attention_mask=mask)
    if whole:
        return found.logits
    head = {name: tensor[None] for name, tensor in artifact.tensors.items() if is_head(name)}
    features = pool(first_token(found.last_hidden_state[None]), head, artifact.pooling)
    return classify(features, head["classifier.weight"], head["classifier.bias"])[0]


def test_an_incomplete_head_is_rejected(tmp_path: Path) -> None:
    base = by_transformers(tmp_path / "base", "distilbert")
    _, folder = by_peft(
        DistilBertForSequenceClassification.from_pretrained(base, num_labels=4),
        tmp_path / "adapter",
        target_modules=["q_lin"],
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: t for name, t in tensors.items() if "pre_classifier" not in name}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(
        RunError,
        match=r"adapter and base have no pre_classifier; save it with modules_to_save=\['pre_classifier'",
    ):
        load_classifier(folder)


@pytest.mark.parametrize("damage", ["weights", "config", "cut", "sizes", "half", "base"])
def test_a_broken_peft_folder_is_reported(pair: Pair, tmp_path: Path, damage: str) -> None:
    _, folder = by_peft(base_of(pair), tmp_path / "adapter")
    path, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors = load_file(path)
    query = next(name for name in tensors if name.endswith("query.lora_A.weight"))
    if damage == "weights":
        path.unlink()
    elif damage == "config":
        config.write_text("[]")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "base":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": None}))
    else:
        tensors = {n: t for n, t in tensors.items() if n != query} | (
            {query: torch.ones(4, 31)} if damage == "sizes" else {}
        )
        save_file(tensors, path)
    words = {
        "weights": "no weights",
        "config": "JSON object",
        "cut": "cannot be read",
        "sizes": "does not fit",
        "half": r"query has only some of the adapter.s tensors \(B\)",
        "base": "--backbone",
    }
    with pytest.raises(RunError, match=words[damage]):
        load_classifier(folder)


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("head", ["pooler", "trained-pooler"])
def test_the_snippets_of_the_card_run(
    pair: Pair, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, artifact = trained(pair, RUNS["all-linear"], head)
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    monkeypatch.chdir(tmp_path / "adapter")
    ours, theirs = snippets(Path("README.md").read_text())
    names: dict[str, Any] = {}
    exec(theirs, names)
    exec(ours, names)
    printed = [re.findall(r"'([\w/]+)'", line) for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert len(printed) == 2
    assert printed[0] == printed[1]
    texts = ["a w3 w60 z", "w9", "k l m n o p q r s t u v w x y z a b c d e f g"]
    tokens = names["tokenizer"](texts, truncation=True, max_length=16, padding=True, return_tensors="pt")
    with torch.no_grad():
        by_peft_ = names["model"](**tokens).logits.softmax(-1)
    assert (torch.from_numpy(names["classifier"].predict_proba(texts)) - by_peft_).abs().max() <= FP32
    assert by_peft_.std(0).max() > 1e-4


@pytest.mark.parametrize("name", ["query-value", "probe", "full", "mean"])
def test_the_card_says_what_the_folder_is(pair: Pair, tmp_path: Path, name: str) -> None:
    import yaml

    _, _, artifact = trained(pair, RUNS.get(name, RUNS["all-linear"]), "mean" if name == "mean" else "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    add_metrics(tmp_path / "adapter", "validation", 1234, Scores({"accuracy": 0.91, "macro_f1": 0.9}, {}, None))
    add_metrics(tmp_path / "adapter", "test", 1234, Scores({"accuracy": 0.87654, "macro_f1": 0.9}, {}, 0.5))
    card = (tmp_path / "adapter" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == ("peft" if name == "query-value" else "loralet")
    assert front["pipeline_tag"] == "text-classification"
    assert "base_model" not in front  # a local folder is not named on the hub
    assert front["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "value": 0.8765}
    assert "| test | 1,234 | 0.8765 | 0.9000 | 0.5000 |" in card
    assert "| validation | 1,234 | 0.9100 | 0.9000 | – |" in card
    assert len(snippets(card)) == (2 if name == "query-value" else 1)
    assert ("head.safetensors" in card) == (name == "mean")
    assert load_artifact(tmp_path / "adapter").metrics["test"].scores["accuracy"] == 0.87654
    assert 'adapter = "me/mine"' in for_hub(card, "me/mine")
    assert 'adapter = "me/mine"' not in card


def test_a_base_from_the_hub_is_named_in_the_front_matter(pair: Pair, tmp_path: Path) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    assert 'base_model: "google/tiny"\n' in card_of(replace(artifact, backbone="google/tiny"), True)
    assert "base_model:" not in card_of(artifact, True)
    own = card_of(replace(artifact, backbone="tiny-en"), True)
    assert "base_model:" not in own
    assert 'backbone = str(bundled("tiny-en"))' in own


def test_names_that_are_not_adapters_are_rejected(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("nowhere", "runs/nowhere", "./runs/x", "a b/c"):
        with pytest.raises(RunError, match="no such folder"):
            find_adapter(Path(name))
    config = pair.folder / "config.json"
    config.write_text(config.read_text().replace("BertForSequenceClassification", "BertModel"))
    with pytest.raises(RunError, match="base model alone"):
        find_adapter(pair.folder)
    assert os.environ["HF_HUB_OFFLINE"] == "1"

    with pytest.raises(HubError, match="nobody/nothing"):
        find_adapter(Path("nobody/nothing"))


def test_the_command_line_predicts_with_a_peft_adapter_and_rejects_a_changed_base(pair: Pair, tmp_path: Path) -> None:
    model, folder = by_peft(base_of(pair), tmp_path / "adapter")
    done = command(
        tmp_path, "predict", "adapter", "a w3 w60 z", "--format", "jsonl", "--label-names", "N", "E", "S", "W"
    )
    assert done.returncode == 0, done.stderr
    probabilities = json.loads(done.stdout)["probabilities"]
    tokens = pair.ours.tokenizer.encode("a w3 w60 z").ids
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits.softmax(-1)[0]
    assert list(probabilities) == ["N", "E", "S", "W"]
    assert list(probabilities.values()) == pytest.approx(theirs.tolist(), abs=FP32)

    TextClassifier.load(folder).save(tmp_path / "ours")
    make_pair(pair.folder, seed=9)  # replaces the backbone by another model
    refused = command(tmp_path, "predict", "ours", "a w3", "--format", "jsonl")
    assert refused.returncode == 2
    assert "trained on another model than" in refused.stderr
    assert "--any-backbone" in refused.stderr
    forced = command(tmp_path, "predict", "ours", "a w3 w60 z", "--format", "jsonl", "--any-backbone")
    assert forced.returncode == 0
    assert list(json.loads(forced.stdout)["probabilities"].values()) != pytest.approx(theirs.tolist(), abs=FP32)


def test_texts_are_truncated_to_the_positions_of_another_backbone(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, folder = by_peft(base_of(pair), tmp_path / "adapter")
    TextClassifier.load(folder).save(tmp_path / "ours")
    short = make_pair(tmp_path / "short", seed=9, max_position_embeddings=8)
    before = TextClassifier.load(tmp_path / "ours").artifact_.max_length
    assert before > 8
    assert not caplog.messages
    loaded = TextClassifier.load(tmp_path / "ours", force=True, backbone=str(short.folder))
    cut = f"texts are truncated to 8 tokens instead of {before}, as {short.folder} has no more positions"
    assert caplog.messages == [cut]
    long, first = "a w3 " * 20, "a w3 a w3 a w3"
    ours, theirs = loaded.predict_proba([long, first]).tolist()
    assert ours == pytest.approx(theirs, abs=FP32)
    arguments = ("predict", "ours", "--any-backbone", "--backbone", "short", "--format", "jsonl", long)
    assert command(tmp_path, *arguments).returncode == 0
