"""A trained run as a folder: PEFT's two files, and what PEFT's files forget.

adapter_config.json          PEFT's configuration                       (rank above 0)
adapter_model.safetensors    A, B and, where PEFT can say it, the head  (rank above 0)
head.safetensors             the head, where PEFT cannot say it: the mean head, a head alone, an architecture with another head
config.json, model.safetensors   a whole checkpoint instead             (full fine-tuning)
loralet.json                 labels, head, lengths, configuration, backbone and data fingerprints, training options, metrics
tokenizer.json, tokenizer_config.json   the tokenizer, and what transformers wants to know of it
README.md                    the model card
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralet import __version__
from loralet.artifacts.card import card
from loralet.artifacts.verify import verify
from loralet.atomic import new_file, new_folder, write_json
from loralet.errors import RunError
from loralet.hub.backbone import Backbone
from loralet.hub.tokenizer_config import tokenizer_config
from loralet.models.families import ARCHITECTURES, Architecture

SCHEMA = 1
PEFT_PREFIX = "base_model.model."
ADAPTER_FILES = (
    "loralet.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "head.safetensors",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
)
"""All that an adapter folder may hold."""
HEAD_SLOTS = ("classifier.weight", "classifier.bias", "pooler.weight", "pooler.bias")


@dataclass(frozen=True)
class Artifact:
    """What was learned by one run.

    Args:
        id: the run's name in its study.
        role: ``lora``, ``linear-probe`` or ``full``.
        labels: label names, in the order of the logits.
        head: what the classifier reads: ``pooler``, ``trained-pooler`` or ``mean``.
        max_length: tokens kept of a text.
        rank, alpha, dropout, targets, scaling: the LoRA configuration.
        backbone: hub id or folder of the frozen encoder.
        backbone_fingerprint: hash of its tensors.
        architecture: its model type.
        data_fingerprint: hash of the data set.
        tensors: the trained tensors by slot name (:meth:`loralet.adapters.pack.Pack.extract`).
        head_activation: of the pooler: ``tanh``; ``relu`` or ``gelu`` in heads that PEFT trained on DistilBERT or ELECTRA.
        label_type: what the labels were before they became names: ``str``, ``int``, ``float`` or ``bool``.
        training: the options it was trained with, as JSON.
        data: what it was trained on: ``source``, ``train_rows``, ``validation_rows``.
        metrics: by split, its rows and scores.
    """

    id: str
    role: str
    labels: tuple[str, ...]
    head: str
    max_length: int
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    scaling: str
    backbone: str
    backbone_fingerprint: str
    architecture: str
    data_fingerprint: str
    tensors: dict[str, Tensor]
    head_activation: str = "tanh"
    label_type: str = "str"
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "tensors"}
        return {"schema": SCHEMA, "loralet": __version__} | fields


def save_artifact(folder: Path, artifact: Artifact, backbone: Backbone) -> None:
    """Write a run's folder, whole or not at all, after it was loaded back and gave the same logits.

    Raises:
        CheckError: what was written does not compute what is in memory; nothing is kept.
    """
    architecture = backbone.architecture
    with new_folder(folder) as temporary:
        write_json(temporary / "loralet.json", artifact.describe())
        (temporary / "README.md").write_text(card(artifact, carried_by_peft(artifact)), encoding="utf-8")
        backbone.tokenizer.save(str(temporary / "tokenizer.json"))
        write_json(temporary / "tokenizer_config.json", tokenizer_config(backbone.tokenizer, artifact.max_length))
        head = {name: t.contiguous() for name, t in artifact.tensors.items() if name in HEAD_SLOTS}
        if artifact.role == "full":
            _save_checkpoint(temporary, artifact, backbone)
            save_file(
                {name: t for name, t in head.items() if name.startswith("classifier")}, temporary / "head.safetensors"
            )
        elif artifact.rank == 0:
            save_file(head, temporary / "head.safetensors")
        else:
            in_peft = _head_in_peft(artifact)
            write_json(temporary / "adapter_config.json", _peft_config(artifact, architecture, in_peft))
            tensors = {
                _peft_name(name, architecture, in_peft): t.contiguous()
                for name, t in artifact.tensors.items()
                if name not in HEAD_SLOTS
            }
            if in_peft:
                tensors |= {_peft_name(name, architecture, in_peft): t for name, t in head.items()}
            else:
                save_file(head, temporary / "head.safetensors")
            save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        verify(temporary, load_artifact(temporary), artifact, backbone)


def _saved(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise RunError(
            f"{path} is missing, and without it the classifier would only guess; copy the folder again, or train anew"
        )
    return load_file(path)


def add_metrics(folder: Path, split: str, metrics: dict[str, Any]) -> None:
    """Note how a saved run did on a further split, in loralet.json and on the card."""
    artifact = load_artifact(folder)
    artifact = replace(artifact, metrics=artifact.metrics | {split: metrics})
    write_json(folder / "loralet.json", artifact.describe())
    with new_file(folder / "README.md") as temporary:
        temporary.write_text(card(artifact, carried_by_peft(artifact)), encoding="utf-8")


def load_artifact(folder: Path) -> Artifact:
    """Read a run's folder.

    Raises:
        RunError: not such a folder, a newer schema, or files missing or broken.
    """
    path = folder / "loralet.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if described.pop("schema") != SCHEMA:
            raise RunError(f"{path}: written by a newer loralet ({described.get('loralet')}); this is {__version__}")
        described.pop("loralet")
        described |= {key: tuple(described[key]) for key in ("labels", "targets")}
        artifact = Artifact(**described, tensors={})
        adapted = artifact.role != "full" and artifact.rank > 0
        if adapted:
            architecture = ARCHITECTURES[artifact.architecture]
            artifact.tensors.update(
                (_own_name(name, architecture), t) for name, t in _saved(folder / "adapter_model.safetensors").items()
            )
        if not (adapted and _head_in_peft(artifact)):
            artifact.tensors.update(_saved(folder / "head.safetensors"))
        missing = {"classifier.weight", "classifier.bias"} - artifact.tensors.keys()
        if missing:
            raise RunError(
                f"{folder}: the classifier is not among its tensors ({', '.join(sorted(missing))}); what is left would only guess"
            )
        return artifact
    except FileNotFoundError as error:
        raise RunError(f"{folder}: not an adapter folder of loralet ({error.filename} is missing)") from error
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{folder}: cannot be read as an adapter folder ({type(error).__name__}: {error})") from error


def carried_by_peft(artifact: Artifact) -> bool:
    """Whether PEFT can load the whole classifier: adapters and head."""
    return artifact.role == "lora" and artifact.rank > 0 and _head_in_peft(artifact)


def _head_in_peft(artifact: Artifact) -> bool:
    """Whether transformers' ...ForSequenceClassification of this architecture has just this head, so that PEFT can carry it."""
    return artifact.architecture == "bert" and artifact.head != "mean"


def _peft_config(artifact: Artifact, architecture: Architecture, in_peft: bool) -> dict[str, Any]:
    prefix = architecture.prefix if in_peft else ""
    linears = sorted({name.removesuffix(".A") for name in artifact.tensors if name.endswith(".A")})
    simple = set(artifact.targets) <= {"query", "key", "value"} and artifact.architecture != "distilbert"
    saved = ["classifier", *(["pooler"] if artifact.head == "trained-pooler" else [])] if in_peft else None
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if in_peft else "FEATURE_EXTRACTION",
        "base_model_name_or_path": artifact.backbone,
        "r": artifact.rank,
        "lora_alpha": int(artifact.alpha) if artifact.alpha.is_integer() else artifact.alpha,
        "lora_dropout": artifact.dropout,
        "use_rslora": artifact.scaling == "rslora",
        "target_modules": list(artifact.targets)
        if simple
        else [prefix + architecture.module(name) for name in linears],
        "modules_to_save": saved,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def _peft_name(slot: str, architecture: Architecture, in_peft: bool) -> str:
    prefix = PEFT_PREFIX + (architecture.prefix if in_peft else "")
    if slot.startswith("classifier"):
        return PEFT_PREFIX + slot
    if slot.startswith("pooler"):
        return prefix + architecture.tensor(slot)
    linear, _, matrix = slot.rpartition(".")
    return f"{prefix}{architecture.module(linear)}.lora_{matrix}.weight"


def _own_name(peft: str, architecture: Architecture) -> str:
    """The slot that a tensor of a PEFT file belongs to.

    Raises:
        KeyError: it belongs to none.
    """
    name = peft.removeprefix(PEFT_PREFIX)
    if name.startswith("classifier."):
        return name
    name = name.removeprefix(architecture.prefix)
    module, _, matrix = name.removesuffix(".weight").rpartition(".lora_")
    if matrix in ("A", "B"):
        return f"{architecture.linear(module)}.{matrix}"
    return {architecture.tensor(slot): slot for slot in ("pooler.weight", "pooler.bias")}[name]


def _save_checkpoint(folder: Path, artifact: Artifact, backbone: Backbone) -> None:
    """The fine-tuned encoder as a checkpoint of its own."""
    architecture = backbone.architecture
    merged = backbone.weights | {name: t for name, t in artifact.tensors.items() if not name.startswith("classifier")}
    save_file(
        {architecture.prefix + architecture.tensor(n): t.contiguous() for n, t in merged.items()},
        folder / "model.safetensors",
    )
    write_json(folder / "config.json", backbone.config | {"model_type": architecture.model_type})
