"""The bundled encoder as a repository next to that of an adapter, so that PEFT finds the base of the adapter."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from loralet.artifacts.artifact import read_description
from loralet.artifacts.folder import checkpoint_tensors
from loralet.artifacts.reading import CONFIG, read_described
from loralet.export.checkpoint import hf_config
from loralet.hub.backbone import load_backbone
from loralet.hub.bundled import bundled
from loralet.hub.tokenizer_config import tokenizer_config

SUFFIX = "-base"
"""Ending of the name of the base's repository."""
IMPORT = "from loralet.hub.bundled import bundled\n"


def needs_base(folder: Path) -> bool:
    """Whether a folder is an adapter in PEFT's format on the bundled encoder, which no hub has."""
    if not (folder / "loralet.json").exists() or not (folder / CONFIG).exists():
        return False
    name = read_described(folder).get("backbone")
    return isinstance(name, str) and bundled(name) is not None


def base_files(folder: Path, repo: str) -> dict[str, bytes]:
    """The files of the base of an adapter: weights in fp32, config with the adapter's labels, tokenizer and card.

    PEFT records no labels, so ``AutoPeftModelForSequenceClassification`` takes their number and names from here.

    Args:
        folder: the adapter.
        repo: its repository.

    Raises:
        ValueError: loralet.json cannot be read.
    """
    artifact = read_description(read_described(folder))
    backbone = load_backbone(artifact.backbone)
    front = 'license: "apache-2.0"\nlibrary_name: "transformers"\n'
    card = f"The encoder {artifact.backbone} of loralet, in fp32: the base of the adapter [{repo}]({repo}).\n"
    texts = {
        "config.json": json.dumps(hf_config(artifact, backbone), indent=2, ensure_ascii=False) + "\n",
        "tokenizer.json": backbone.tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(tokenizer_config(backbone.tokenizer, artifact.max_length), indent=2) + "\n",
        "README.md": f"---\n{front}---\n# {repo.rpartition('/')[2]}{SUFFIX}\n\n{card}",
    }
    weights = save(checkpoint_tensors(backbone.weights, backbone.family), metadata={"format": "pt"})
    return {"model.safetensors": weights} | {name: text.encode() for name, text in texts.items()}


def on_base(files: dict[str, bytes], backbone: str, repo: str) -> dict[str, bytes]:
    """The files of an adapter with adapter_config.json and card that name the repository of the base.

    Args:
        files: content by name.
        backbone: name of the bundled encoder.
        repo: repository of the base.
    """
    config = json.loads(files[CONFIG]) | {"base_model_name_or_path": repo}
    changed = {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
    if "README.md" in files:
        card = files["README.md"].decode().replace(IMPORT, "")
        changed["README.md"] = card.replace(f"str(bundled({json.dumps(backbone)}))", json.dumps(repo)).encode()
    return files | changed
