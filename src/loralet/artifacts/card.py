"""The model card of an adapter folder: front matter for the hub, results, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loralet import __version__
from loralet.adapters.spec import METHOD_NAMES
from loralet.hub.bundled import bundled
from loralet.hub.client import is_hub_id
from loralet.records import plain

if TYPE_CHECKING:
    from loralet.artifacts.artifact import Artifact

PLACE = '"."  # this folder, or its hub id'
"""What the snippets say of where the files are; :func:`for_hub` puts the id there."""
HERE = f"adapter = {PLACE}"

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

TRANSFORMERS = """\
from transformers import pipeline

{here}
classify = pipeline("text-classification", model=model)
print(classify(["A text to classify."], truncation=True))
"""

ONNX = """\
import json
from pathlib import Path

import numpy as np
import onnxruntime
from huggingface_hub import snapshot_download
from tokenizers import Tokenizer

{here}
folder = Path(model if Path(model).is_dir() else snapshot_download(model))
told = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(told["max_length"])
tokenizer.enable_padding()  # the mask hides the padding, whatever its id
session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
rows = tokenizer.encode_batch(["A text to classify."])
batch = {{"input_ids": np.array([row.ids for row in rows]), "attention_mask": np.array([row.attention_mask for row in rows])}}
(logits,) = session.run(None, batch)
print([told["labels"][number] for number in logits.argmax(-1)])
"""

KINDS = {"linear-probe": "linear probe", "full": "full fine-tuning"}
"""What an artifact without an adapter is called."""
CHOSEN = "Validation rows chose this state of the run"


def card(artifact: Artifact, in_peft: bool) -> str:
    """The card as Markdown.

    Args:
        artifact: what the folder holds; its tensors are not looked at.
        in_peft: whether PEFT can load all of it, head included.
    """
    parts = [
        _front(
            artifact, "peft" if in_peft else "loralet", [artifact.adapter.method] if artifact.role == "lora" else []
        ),
        f"# {artifact.id}\n",
        f"A {_kind(artifact)} on {_base(artifact)} that sorts texts into {len(artifact.labels)} classes: {', '.join(artifact.labels)}. "
        f"Made with loralet {__version__}.\n",
        _results(artifact),
        "## Load it\n",
        _code(LORALET.format(here=HERE)),
        _peft(artifact, in_peft),
        "## Training\n",
        _training(artifact),
    ]
    return "\n".join(part for part in parts if part)


def export_card(artifact: Artifact, to: str) -> str:
    """The card of an export for other programs.

    Args:
        artifact: the run that was exported.
        to: ``hf`` or ``onnx``.
    """
    library, snippet, form = {
        "hf": ("transformers", TRANSFORMERS, "as a checkpoint for transformers, the adapters merged into its weights"),
        "onnx": ("onnx", ONNX, "as an ONNX graph, the adapters merged into its weights"),
    }[to]
    parts = [
        _front(artifact, library, [artifact.adapter.method] if artifact.adapter.rank else []),
        f"# {artifact.id}\n",
        f"A {_kind(artifact)} on {_base(artifact)} that sorts texts into {len(artifact.labels)} classes: {', '.join(artifact.labels)}; "
        f"{form}. Made with loralet {__version__}.\n",
        _results(artifact),
        "## Load it\n",
        _code(snippet.format(here=f"model = {PLACE}")),
        "## Training\n",
        _training(artifact),
    ]
    return "\n".join(part for part in parts if part)


def for_hub(text: str, repo: str) -> str:
    """A card whose snippets name its folder by its hub id."""
    return text.replace(PLACE, json.dumps(repo))


def _on_hub(artifact: Artifact) -> bool:
    return is_hub_id(artifact.backbone) and bundled(artifact.backbone) is None


def _base(artifact: Artifact) -> str:
    return artifact.backbone if _on_hub(artifact) else Path(artifact.backbone).name


def _kind(artifact: Artifact) -> str:
    made = artifact.provenance
    adapter = f"{METHOD_NAMES[(made.merged_adapter or artifact.adapter).method]} adapter"
    if made.averaged_from and artifact.role != "full":
        return f"mean of {len(made.averaged_from)} {KINDS.get(artifact.role, adapter)}s"
    if made.merged_from:
        return f"{adapter} merged into its weights, trained"
    return KINDS.get(artifact.role, adapter)


def _front(artifact: Artifact, library: str, tags: Sequence[str]) -> str:
    """The hub's metadata; JSON's scalars and lists are YAML's too."""
    entries: dict[str, object] = {"base_model": artifact.backbone} if _on_hub(artifact) else {}
    entries |= {
        "library_name": library,
        "pipeline_tag": "text-classification",
        "tags": ["loralet", *tags, "text-classification", artifact.architecture],
    }
    if artifact.metrics:
        split = "test" if "test" in artifact.metrics else next(iter(artifact.metrics))
        source = Path(artifact.provenance.source or "data").name
        scores = artifact.metrics[split].scores
        measured = [{"type": name, "value": round(scores[name], 4)} for name in _shown(artifact)]
        data = {"name": source, "type": source, "split": split}
        result = {"task": {"type": "text-classification"}, "dataset": data, "metrics": measured}
        entries["model-index"] = [{"name": artifact.id, "results": [result]}]
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return "\n".join(["---", *lines, "---\n"])


def _shown(artifact: Artifact) -> tuple[str, str]:
    """The metrics that the card shows: the one that runs are selected by, and the last of the task's."""
    metrics = artifact.as_task().metrics
    return metrics[0], metrics[-1]


def _results(artifact: Artifact) -> str:
    if not artifact.metrics:
        return ""
    names = _shown(artifact)
    heading = " | ".join(name.replace("_", " ").replace(" f1", " F1") for name in names)
    lines = ["## Results\n", f"| split | rows | {heading} | loss |", "|---|---:|---:|---:|---:|"]
    for split, measured in artifact.metrics.items():
        values = [*(measured.scores[name] for name in names), measured.scores.loss]
        numbers = (f"{value:.4f}" if value is not None else "–" for value in values)
        lines.append(f"| {split} | {measured.rows:,} | {' | '.join(numbers)} |")
    averaged = "The validation rows are those that the runs averaged were chosen on"
    chosen = averaged if artifact.provenance.averaged_from else CHOSEN
    read = "; the test split was read once, at the end." if "test" in artifact.metrics else "."
    return "\n".join([*lines, "", f"{chosen}{read}\n"])


def _peft(artifact: Artifact, in_peft: bool) -> str:
    if in_peft:
        # A backbone that comes with loralet is found where loralet is installed.
        own = bundled(artifact.backbone) is not None
        place = f"str(bundled({_literal(artifact.backbone)}))" if own else _literal(artifact.backbone)
        values = {
            "import_": "from loralet.hub.bundled import bundled\n" if own else "",
            "labels": _literal(list(artifact.labels)),
            "backbone": place,
            "max_length": artifact.max_length,
        }
        return "With PEFT:\n\n" + _code(PEFT.format(here=HERE, **values))
    if artifact.role == "lora":
        return "PEFT loads the encoder's adapters; the head, which PEFT cannot say, is in `head.safetensors`.\n"
    return ""


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _training(artifact: Artifact) -> str:
    """The options that the artifact was made with, as a table."""
    spec, made = artifact.adapter, artifact.provenance
    described: dict[str, object] = {"role": artifact.role, "head": artifact.head, "max_length": artifact.max_length}
    if spec.rank:
        described |= {"method": spec.method, "rank": spec.rank, "alpha": spec.alpha, "dropout": spec.dropout}
        described |= {"scaling": spec.scaling, "targets": " ".join(spec.targets)}
    described |= {"lr": made.lr, "lr_ratio": made.lr_ratio if spec.rank and made.lr else None}
    described |= {"seed": made.seed, "steps_taken": made.steps_taken}
    described |= plain(made.training) if made.training else {}
    described |= {"precision": made.compute.precision} if made.compute else {}
    described |= {"averaged_from": ", ".join(made.averaged_from) or None, "merged_from": made.merged_from or None}
    described |= {"data": Path(made.source).name or None}
    rows = {"train_rows": made.train_rows, "validation_rows": made.validation_rows}
    described |= {name: None if count is None else f"{count:,}" for name, count in rows.items()}
    prints = {"backbone fingerprint": artifact.backbone_fingerprint, "data fingerprint": artifact.data_fingerprint}
    told = {name: value for name, value in (described | prints).items() if value is not None}
    lines = (f"| {name.replace('_', ' ')} | {value} |" for name, value in told.items())
    return "\n".join(["| option | value |", "|---|---|", *lines, ""])


def _code(text: str) -> str:
    return f"```python\n{text}```\n"
