"""The adapter folder of a trained run: PEFT's two files, and files for everything else.

adapter_config.json          PEFT's configuration                                    (rank above 0)
adapter_model.safetensors    the adapter's tensors and, if PEFT supports it, the head (rank above 0)
head.safetensors             the head, if PEFT does not support it: mean head, head without adapters, some families
words.json, words.safetensors    the linear model on words of a hybrid (loralet.artifacts.words)
config.json, model.safetensors   a whole checkpoint instead                          (full fine-tuning)
loralet.json                 labels, head, adapter, fingerprints, provenance, metrics (loralet.artifacts.artifact)
tokenizer.json, tokenizer_config.json   the tokenizer, and its settings for transformers
README.md                    the model card
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from loralet.adapters.registry import METHODS
from loralet.artifacts.artifact import Artifact, Measured, is_head, with_metrics
from loralet.artifacts.card import card
from loralet.artifacts.checking import checkpoint_checksum, checksums
from loralet.artifacts.reading import PEFT_PREFIX, head_in_peft, read_artifact, read_described
from loralet.artifacts.verify import verify
from loralet.artifacts.words import write_words
from loralet.atomic import new_file, new_folder, write_json
from loralet.errors import CheckError, RunError
from loralet.hub.backbone import Backbone
from loralet.hub.bundled import bundled
from loralet.hub.checkpoint import fingerprint_of
from loralet.hub.names import is_hub_id, parse_name
from loralet.hub.tensors import number_problems
from loralet.hub.tokenizer_config import tokenizer_config
from loralet.models.family import Family
from loralet.tasks.base import Scores
from loralet.tasks.classes import ClassScores


def save_artifact(folder: Path, artifact: Artifact, backbone: Backbone) -> None:
    """Write a run's folder atomically, after verifying that the loaded folder gives the same logits.

    Raises:
        CheckError: a value is not finite, or the written folder gives other logits than the artifact in memory;
            nothing is kept.
        RunError: the tokenizer is not that of the backbone.
    """
    family = backbone.family
    if backbone.own_tokenizer and artifact.role != "full":
        raise RunError(
            f"{artifact.id}: the adapter has its own tokenizer, and an adapter folder uses that of its backbone; "
            "export it with --to safetensors-bundle or --to hf"
        )
    if problems := list(number_problems(_arrays(artifact))):
        raise CheckError(f"{artifact.id}: {'; '.join(problems[:5])}; nothing was kept")
    with new_folder(folder) as temporary:
        (temporary / "README.md").write_text(card(artifact, carried_by_peft(artifact)), encoding="utf-8")
        backbone.tokenizer.save(str(temporary / "tokenizer.json"))
        write_json(temporary / "tokenizer_config.json", tokenizer_config(backbone.tokenizer, artifact.max_length))
        if artifact.words is not None:
            write_words(temporary, artifact.words)
        head = {name: t.contiguous() for name, t in artifact.tensors.items() if is_head(name)}
        if artifact.role == "full":
            _save_checkpoint(temporary, artifact, backbone)
            save_file({n: t for n, t in head.items() if n.startswith("classifier")}, temporary / "head.safetensors")
        elif artifact.adapter.rank == 0:
            save_file(head, temporary / "head.safetensors")
        else:
            in_peft = head_in_peft(artifact)
            write_json(temporary / "adapter_config.json", _peft_config(artifact, family, in_peft))
            tensors = {n: t.contiguous() for n, t in artifact.tensors.items() if in_peft or not is_head(n)}
            if not in_peft:
                save_file(head, temporary / "head.safetensors")
            named = {_peft_name(name, artifact, family, in_peft): t for name, t in tensors.items()}
            save_file(named, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        _write_description(temporary, artifact, _own_checkpoint(temporary, artifact, backbone))
        try:
            loaded = load_artifact(temporary)
        except RunError as error:
            raise CheckError(f"{artifact.id}: the files differ from the run, nothing was kept ({error})") from error
        verify(temporary, loaded, artifact, backbone)


def add_metrics(folder: Path, split: str, rows: int, scores: Scores, classes: tuple[ClassScores, ...] = ()) -> None:
    """Add scores on another split to loralet.json and the card of a saved run."""
    recorded = read_described(folder).get("sha256")
    artifact = with_metrics(load_artifact(folder), split, Measured(rows, scores, classes))
    _write_description(folder, artifact, recorded.get("checkpoint") if isinstance(recorded, dict) else None)
    with new_file(folder / "README.md") as temporary:
        temporary.write_text(card(artifact, carried_by_peft(artifact)), encoding="utf-8")


def _write_description(folder: Path, artifact: Artifact, checkpoint: str | None) -> None:
    """Write loralet.json with the checksums of the files that the folder has."""
    arrays = {n: a for n, a in _arrays(artifact).items() if artifact.role != "full" or n.startswith("classifier")}
    described = artifact.describe()
    write_json(folder / "loralet.json", described | {"sha256": checksums(folder, described, arrays, checkpoint)})


def _arrays(artifact: Artifact) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in artifact.tensors.items()}


def _own_checkpoint(folder: Path, artifact: Artifact, backbone: Backbone) -> str | None:
    """The checksum of the checkpoint of a fully fine-tuned run; else None."""
    if artifact.role != "full":
        return None
    frozen = {name: tensor.cpu().numpy() for name, tensor in backbone.weights.items()}
    trained = {name: array for name, array in _arrays(artifact).items() if not name.startswith("classifier")}
    return checkpoint_checksum(folder, fingerprint_of(frozen | trained))


def load_artifact(folder: Path) -> Artifact:
    """Read a run's folder; errors as for :func:`loralet.artifacts.reading.read_artifact`."""
    artifact, arrays = read_artifact(folder)
    return replace(artifact, tensors={name: torch.tensor(array) for name, array in arrays.items()})


def carried_by_peft(artifact: Artifact) -> bool:
    """Whether PEFT can load the whole classifier, adapters and head."""
    return artifact.role == "lora" and artifact.adapter.rank > 0 and head_in_peft(artifact)


def _peft_config(artifact: Artifact, family: Family, in_peft: bool) -> dict[str, object]:
    spec, prefix = artifact.adapter, family.prefix if in_peft else ""
    linears = sorted({name.rpartition(".")[0] for name in artifact.tensors if name.startswith("layers.")})
    # PEFT matches a bare name against the end of every module path.
    bare = [family.parts[target] for target in spec.targets]
    simple = all(path.endswith(f".{name}") for name, path in zip(spec.targets, bare, strict=True))
    saved = ["classifier", *(["pooler"] if artifact.head == "trained-pooler" else [])] if in_peft else None
    own = bundled(artifact.backbone)
    base = parse_name(artifact.backbone) if not own and is_hub_id(artifact.backbone) else None
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if in_peft else "FEATURE_EXTRACTION",
        "base_model_name_or_path": str(own) if own else base.repo if base else artifact.backbone,
        "revision": base.revision or None if base else None,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha.is_integer() else spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.scaling == "rslora",
        "target_modules": list(spec.targets) if simple else [prefix + family.module(name) for name in linears],
        "modules_to_save": saved,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    } | dict(METHODS[spec.method].format.peft_config)


def _peft_name(slot: str, artifact: Artifact, family: Family, in_peft: bool) -> str:
    prefix = PEFT_PREFIX + (family.prefix if in_peft else "")
    if slot.startswith("classifier"):
        return PEFT_PREFIX + slot
    if slot.startswith("pooler"):
        return prefix + family.tensor(slot)
    linear, _, part = slot.rpartition(".")
    return f"{prefix}{family.module(linear)}.{METHODS[artifact.adapter.method].format.peft_names[part]}"


def _save_checkpoint(folder: Path, artifact: Artifact, backbone: Backbone) -> None:
    """Save the fine-tuned encoder as a checkpoint."""
    family = backbone.family
    trained = {name: t for name, t in artifact.tensors.items() if not name.startswith("classifier")}
    save_file(checkpoint_tensors(backbone.weights | trained, family), folder / "model.safetensors")
    write_json(folder / "config.json", backbone.config | {"model_type": family.model_type})


def checkpoint_tensors(weights: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Tensors by their names in a checkpoint with a head."""
    return {family.prefix + family.tensor(name): tensor.contiguous() for name, tensor in weights.items()}
