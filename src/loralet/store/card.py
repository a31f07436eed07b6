"""The model card of an adapter folder: front matter for the hub, results, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loralet import __version__
from loralet.store.bundled import bundled
from loralet.store.hub import is_hub_id

if TYPE_CHECKING:
    from loralet.store.adapters import Artifact

HERE = 'adapter = "."  # this folder, or its hub id'
"""The line of the snippets that says where the adapter is; :func:`for_hub` puts the id there."""

LORALET = """\
from loralet import TextClassifier

{here}
classifier = TextClassifier.load(adapter)
print(classifier.predict(["A text to classify."]))
"""

PEFT = """\
{import_}from peft import PeftModel
from transformers import AutoTokenizer, BertForSequenceClassification

{here}
labels = {labels}
backbone = {backbone}
base = BertForSequenceClassification.from_pretrained(
    backbone,
    num_labels=len(labels),
    id2label=dict(enumerate(labels)),
    label2id={{name: number for number, name in enumerate(labels)}},
)
model = PeftModel.from_pretrained(base, adapter).eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)
batch = tokenizer(["A text to classify."], truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
print([labels[number] for number in model(**batch).logits.argmax(-1)])
"""

KINDS = {"lora": "LoRA adapter", "linear-probe": "linear probe", "full": "full fine-tuning"}
SHOWN = ("accuracy", "macro_f1", "loss")


def card(artifact: Artifact, in_peft: bool) -> str:
    """The card as Markdown.

    Args:
        artifact: what the folder holds; its tensors are not looked at.
        in_peft: whether PEFT can load all of it, head included.
    """
    base = artifact.backbone if _on_hub(artifact) else Path(artifact.backbone).name
    parts = [
        _front(artifact, in_peft),
        f"# {artifact.id}\n",
        f"A {_kind(artifact)} on {base} that sorts texts into {len(artifact.labels)} classes: {', '.join(artifact.labels)}. "
        f"Made with loralet {__version__}.\n",
        _results(artifact),
        "## Load it\n",
        _code(LORALET.format(here=HERE)),
        _peft(artifact, in_peft),
        "## Training\n",
        _training(artifact),
    ]
    return "\n".join(part for part in parts if part)


def for_hub(text: str, repo: str) -> str:
    """A card whose snippets name the adapter by its hub id."""
    return text.replace(HERE, f"adapter = {json.dumps(repo)}")


def _on_hub(artifact: Artifact) -> bool:
    return is_hub_id(artifact.backbone) and bundled(artifact.backbone) is None


def _kind(artifact: Artifact) -> str:
    return "LoRA adapter merged into its weights, trained" if "merged_from" in artifact.training else KINDS[artifact.role]


def _front(artifact: Artifact, in_peft: bool) -> str:
    """The hub's metadata; JSON's scalars and lists are YAML's too."""
    entries: dict[str, Any] = {"base_model": artifact.backbone} if _on_hub(artifact) else {}
    entries |= {
        "library_name": "peft" if in_peft else "loralet",
        "pipeline_tag": "text-classification",
        "tags": ["loralet", *(["lora"] if artifact.role == "lora" else []), "text-classification", artifact.architecture],
    }
    if artifact.metrics:
        split = "test" if "test" in artifact.metrics else next(iter(artifact.metrics))
        source = Path(str(artifact.data.get("source", "data"))).name
        measured = [{"type": name, "value": round(artifact.metrics[split][name], 4)} for name in ("accuracy", "macro_f1")]
        data = {"name": source, "type": source, "split": split}
        result = {"task": {"type": "text-classification"}, "dataset": data, "metrics": measured}
        entries["model-index"] = [{"name": artifact.id, "results": [result]}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return "\n".join(["---", *lines, "---\n"])


def _results(artifact: Artifact) -> str:
    if not artifact.metrics:
        return ""
    lines = ["## Results\n", "| split | rows | accuracy | macro F1 | loss |", "|---|---:|---:|---:|---:|"]
    for split, values in artifact.metrics.items():
        numbers = (f"{values[name]:.4f}" if values.get(name) is not None else "–" for name in SHOWN)
        lines.append(f"| {split} | {values['rows']:,} | {' | '.join(numbers)} |")
    chosen = "Validation rows chose this state of the run"
    read = "; the test split was read once, at the end." if "test" in artifact.metrics else "."
    return "\n".join([*lines, "", f"{chosen}{read}\n"])


def _peft(artifact: Artifact, in_peft: bool) -> str:
    if in_peft:
        # A backbone that comes with loralet is found where loralet is installed.
        own = bundled(artifact.backbone) is not None
        place = f"str(bundled({_literal(artifact.backbone)}))" if own else _literal(artifact.backbone)
        values = {
            "import_": "from loralet.store.bundled import bundled\n" if own else "",
            "labels": _literal(list(artifact.labels)),
            "backbone": place,
            "max_length": artifact.max_length,
        }
        return "With PEFT:\n\n" + _code(PEFT.format(here=HERE, **values))
    if artifact.role == "lora":
        return "PEFT loads the encoder's adapters; the head, which PEFT cannot say, is in `head.safetensors`.\n"
    return ""


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _training(artifact: Artifact) -> str:
    described: dict[str, Any] = {"role": artifact.role, "head": artifact.head, "max_length": artifact.max_length}
    if artifact.rank:
        scaled = {"rank": artifact.rank, "alpha": artifact.alpha, "dropout": artifact.dropout, "scaling": artifact.scaling}
        described |= scaled | {"targets": " ".join(artifact.targets)}
    described |= _plain(artifact.training)
    described |= {"data": Path(str(artifact.data["source"])).name} if "source" in artifact.data else {}
    described |= {name: f"{artifact.data[name]:,}" for name in ("train_rows", "validation_rows") if name in artifact.data}
    described |= {"backbone fingerprint": artifact.backbone_fingerprint, "data fingerprint": artifact.data_fingerprint}
    return "\n".join(["| option | value |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value} |" for name, value in described.items()), ""])


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and name != "threads"}


def _code(text: str) -> str:
    return f"```python\n{text}```\n"
