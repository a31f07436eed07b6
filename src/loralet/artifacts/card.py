"""The model card of an adapter folder: front matter for the hub, results, and loading snippets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from loralet import __version__
from loralet.adapters.spec import METHOD_NAMES
from loralet.artifacts.artifact import Artifact, without_words
from loralet.hub.bundled import bundled
from loralet.hub.names import is_hub_id, parse_name
from loralet.records import plain

PLACE = '"."  # this folder, or its hub id'
"""Location of the files in the snippets; :func:`for_hub` replaces it by the hub id."""
HERE = f"adapter = {PLACE}"
PLACE_IN_JS = '"."; // this folder, or its hub id'
"""The same in JavaScript."""

LORALET = """\
from loralet import TextClassifier

{here}
classifier = TextClassifier.load(adapter)
print(classifier.predict(["A text to classify."]))
"""

PEFT = """\
import torch
{import_}from peft import PeftModel
from transformers import AutoTokenizer, BertForSequenceClassification

{here}
labels = {labels}
backbone = {backbone}
base = BertForSequenceClassification.from_pretrained(
    backbone,
    dtype=torch.float32,  # a base stored in fp16 is otherwise trained in fp16, which gives NaN
    num_labels=len(labels),
    id2label=dict(enumerate(labels)),
    label2id={{name: number for number, name in enumerate(labels)}},
)
model = PeftModel.from_pretrained(base, adapter).eval()  # to train on: is_trainable=True, and without .eval()
tokenizer = AutoTokenizer.from_pretrained(adapter)
batch = tokenizer(["A text to classify."], truncation=True, max_length={max_length}, padding=True, return_tensors="pt")
print([labels[number] for number in model(**batch).logits.argmax(-1)])
"""

PEFT_NOTES = """\
`AutoPeftModelForSequenceClassification.from_pretrained` with the same `dtype`, `num_labels`, `id2label` and `label2id`
loads the base that `adapter_config.json` names and the adapter. PEFT's `add_weighted_adapter` refuses adapters with
`modules_to_save`, as this one has for its classifier; `loralet average` averages adapters with their classifiers.
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
session = onnxruntime.InferenceSession(str(folder / "{graph}"))
settings = session.get_modelmeta().custom_metadata_map
labels, max_length = json.loads(settings["labels"]), int(settings["max_length"])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(max_length)
tokenizer.enable_padding()  # the mask hides the padding; its id does not matter
rows = tokenizer.encode_batch(["A text to classify."])
ids, masks = [row.ids for row in rows], [row.attention_mask for row in rows]
(logits,) = session.run(None, {{"input_ids": np.array(ids), "attention_mask": np.array(masks)}})
print([labels[number] for number in logits.argmax(-1)])
"""

JAVASCRIPT = """\
import {{ env, pipeline }} from "@huggingface/transformers";

env.localModelPath = "./"; // where folders are searched before the hub
{here}
const classify = await pipeline("text-classification", model, {{ dtype: "{dtype}" }});
console.log(await classify("A text to classify."));
"""
DTYPES = {"model.onnx": "fp32", "model_quantized.onnx": "q8", "model_fp16.onnx": "fp16"}
"""Value of ``dtype`` in transformers.js for each graph."""

FORMATS = ("onnx", "transformers.js")
"""Tags of an export with graphs."""

KINDS = {"linear-probe": "linear probe", "full": "full fine-tuning"}
"""Names of artifacts without an adapter."""
RAW = (
    "loralet divides by it. The weights in this folder do not contain it, so in other programs, such as PEFT, divide "
    "the logits by it before the softmax."
)
BAKED = "It is divided into the weights and the bias of the classifier, so the softmax of its logits is calibrated."
"""Where the temperature of a run and of an export is."""
CHOSEN = "This state of the run was selected on the validation rows"
FOLDED = (
    "This classifier was trained on all rows and keeps its last state. The out-of-fold scores are of {folds} runs "
    "of the same configuration, each on the rows that it was not trained on"
)


def card(artifact: Artifact, in_peft: bool) -> str:
    """The card as Markdown.

    Args:
        artifact: content of the folder; tensors are not used.
        in_peft: whether PEFT can load it entirely, including the head.
    """
    parts = [
        _front(
            artifact, "peft" if in_peft else "loralet", [artifact.adapter.method] if artifact.role == "lora" else []
        ),
        f"# {_cell(artifact.id)}\n",
        f"{_summary(artifact)}. Made with loralet {__version__}.\n",
        _results(artifact),
        _classes(artifact),
        _probabilities(artifact, RAW),
        "## Loading\n",
        _code(LORALET.format(here=HERE)),
        _peft(artifact, in_peft),
        "## Training\n",
        _training(artifact),
    ]
    return "\n".join(part for part in parts if part)


def export_card(artifact: Artifact, to: str, graphs: Sequence[str] = ()) -> str:
    """The card of an export for other programs, which contains a hybrid without its linear model on words.

    Args:
        artifact: the exported run.
        to: ``hf`` or ``onnx``.
        graphs: files of the folder onnx/ of an export ``hf``.
    """
    library, form = {
        "hf": ("transformers", "a transformers checkpoint with the adapter merged into the weights"),
        "onnx": ("onnx", "an ONNX graph with the adapter merged into the weights"),
    }[to]
    here, graph = f"model = {PLACE}", "onnx/model.onnx" if to == "hf" else "model.onnx"
    own = {"hf": TRANSFORMERS.format(here=here), "onnx": ONNX.format(here=here, graph=graph)}[to]
    alone, omitted = without_words(artifact), omission(artifact)
    parts = [
        _front(alone, library, [*([alone.adapter.method] if alone.adapter.rank else []), *(FORMATS if graphs else ())]),
        f"# {_cell(alone.id)}\n",
        f"{_summary(alone)}; {form}. Made with loralet {__version__}.\n",
        f"{omitted}.\n" if omitted else "",
        _results(alone),
        _classes(alone),
        _probabilities(alone, BAKED),
        "## Loading\n",
        _code(own),
        _graphs(graphs, here),
        "## Training\n",
        _training(alone),
    ]
    return "\n".join(part for part in parts if part)


def _graphs(graphs: Sequence[str], here: str) -> str:
    """How to use the graphs of the folder onnx/; empty without them."""
    if not graphs:
        return ""
    dtypes = [DTYPES[name] for name in graphs]
    known = ", ".join(f"`{dtype}` (`onnx/{name}`)" for name, dtype in zip(graphs, dtypes, strict=True))
    missing = [f"`{dtype}`" for dtype in DTYPES.values() if dtype not in dtypes]
    left_out = f" {' and '.join(missing)} would predict other labels and is left out." if missing else ""
    script = JAVASCRIPT.format(here=f"const model = {PLACE_IN_JS}", dtype=dtypes[0])
    return (
        f"With transformers.js, as `dtype` {known}.{left_out}\n\n{_code(script, 'javascript')}\n"
        f"With ONNX Runtime; optimum loads the folder too:\n\n{_code(ONNX.format(here=here, graph='onnx/model.onnx'))}"
    )


def omission(artifact: Artifact) -> str:
    """What an export of a hybrid for other programs does not contain; empty for another run."""
    if artifact.words is None:
        return ""
    return (
        f"This export contains only the encoder of the hybrid {artifact.id}, not its linear model on words "
        f"(weight {1 - artifact.mixing.weight:.2f}), so its predictions differ from those of the hybrid"
    )


def _summary(artifact: Artifact) -> str:
    labels = artifact.labels
    into = f"{len(labels)} classes: {', '.join(map(_cell, labels))}"
    words = ""
    if artifact.words is not None:
        words = f", combined with a linear model on words (weight {1 - artifact.mixing.weight:.2f}),"
    return f"A {_kind(artifact)} on {_cell(_base(artifact))}{words} that classifies texts into {into}"


def for_hub(text: str, repo: str) -> str:
    """Replace the folder in a card's snippets by a hub id."""
    return text.replace(PLACE_IN_JS, f"{json.dumps(repo)};").replace(PLACE, json.dumps(repo))


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
        return f"model with a merged {adapter}, trained"
    return KINDS.get(artifact.role, adapter)


def _front(artifact: Artifact, library: str, tags: Sequence[str]) -> str:
    """The hub's metadata; JSON scalars and lists are valid YAML."""
    base = parse_name(artifact.backbone) if _on_hub(artifact) else None
    entries: dict[str, object] = {"base_model": base.repo} if base else {}
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
    """The metrics on the card: the main metric, and the last metric of the task."""
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
    averaged = "The averaged runs were selected on the same validation rows"
    made = artifact.provenance
    chosen = averaged if made.averaged_from else FOLDED.format(folds=made.folds) if made.folds else CHOSEN
    read = "; the test split was read once, at the end." if "test" in artifact.metrics else "."
    return "\n".join([*lines, "", f"{chosen}{read}\n"])


def _classes(artifact: Artifact) -> str:
    """Table of the scores of each class on the test split, else on another one; empty if none has them."""
    known = {split: measured.classes for split, measured in artifact.metrics.items() if measured.classes}
    if not known:
        return ""
    split, classes = ("test", known["test"]) if "test" in known else next(iter(known.items()))
    lines = [f"| class ({split}) | precision | recall | F1 | rows |", "|---|---:|---:|---:|---:|"]
    for scores in classes:
        values = (scores.precision, scores.recall, scores.f1)
        numbers = " | ".join("–" if value is None else f"{value:.4f}" for value in values)
        lines.append(f"| {_cell(scores.label)} | {numbers} | {scores.support:,} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """A text in one cell of a Markdown table, without markup."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|" else c for c in line)


def _probabilities(artifact: Artifact, where: str) -> str:
    """The temperature of the logits; empty without one."""
    if artifact.temperature == 1.0:
        return ""
    rows = "out-of-fold predictions" if artifact.provenance.folds else "validation rows"
    return (
        f"Probabilities are calibrated: the temperature of the logits, {artifact.temperature:.4g}, was fitted on "
        f"{rows}. {where} Predicted labels do not depend on it.\n"
    )


def _peft(artifact: Artifact, in_peft: bool) -> str:
    if in_peft:
        # A bundled backbone is loaded from the installed package.
        own = bundled(artifact.backbone) is not None
        place = f"str(bundled({_literal(artifact.backbone)}))" if own else _literal(artifact.backbone)
        values = {
            "import_": "from loralet.hub.bundled import bundled\n" if own else "",
            "labels": _literal(list(artifact.labels)),
            "backbone": place,
            "max_length": artifact.max_length,
        }
        only = ", without the linear model on words, so with other predictions" if artifact.words is not None else ""
        return f"With PEFT{only}:\n\n{_code(PEFT.format(here=HERE, **values))}\n{PEFT_NOTES}"
    if artifact.role == "lora":
        words = " and the linear model on words in `words.json` and `words.safetensors`"
        return (
            "PEFT loads only the encoder's adapters; the head is in `head.safetensors`"
            f"{words if artifact.words is not None else ''}.\n"
        )
    return ""


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _training(artifact: Artifact) -> str:
    """Table of the training options."""
    spec, made = artifact.adapter, artifact.provenance
    described: dict[str, object] = {"role": artifact.role, "head": artifact.head, "max_length": artifact.max_length}
    if spec.rank:
        described |= {"method": spec.method, "rank": spec.rank, "alpha": spec.alpha, "dropout": spec.dropout}
        described |= {"scaling": spec.scaling, "targets": " ".join(spec.targets)}
    described |= {"lr": made.lr, "lr_ratio": made.lr_ratio if spec.rank and made.lr else None}
    described |= {"seed": made.seed, "steps_taken": made.steps_taken}
    described |= _options(artifact)
    described |= {"precision": made.compute.precision} if made.compute else {}
    described |= {"averaged_from": ", ".join(made.averaged_from) or None, "merged_from": made.merged_from or None}
    if artifact.words is not None:
        described |= {"encoder_weight": f"{artifact.mixing.weight:.4f}", "hybrid_of": made.hybrid_of or None}
        described |= {"words": f"{len(artifact.words.idf):,} words and pairs"}
    described |= {"data": Path(made.source).name or None}
    described |= {"teachers": ", ".join(made.teachers) or None}
    rows = {"train_rows": made.train_rows, "validation_rows": made.validation_rows or None, "folds": made.folds}
    rows |= {"texts without labels": made.unlabelled_rows}
    described |= {name: None if count is None else f"{count:,}" for name, count in rows.items()}
    prints = {"backbone fingerprint": artifact.backbone_fingerprint, "data fingerprint": artifact.data_fingerprint}
    rows_shown = {name: value for name, value in (described | prints).items() if value is not None}
    lines = (f"| {name.replace('_', ' ')} | {_cell(str(value))} |" for name, value in rows_shown.items())
    return "\n".join(["| option | value |", "|---|---|", *lines, ""])


def _options(artifact: Artifact) -> dict[str, object]:
    """The training options. Weights of classes are listed by label, without the path of their file."""
    made = artifact.provenance
    if made.training is None:
        return {}
    described = plain(made.training)
    if made.class_weights:
        weights = zip(artifact.labels, made.class_weights, strict=True)
        described["class_weight"] = ", ".join(f"{_cell(label)} {weight:.4g}" for label, weight in weights)
    return described


def _code(text: str, language: str = "python") -> str:
    return f"```{language}\n{text}```\n"
