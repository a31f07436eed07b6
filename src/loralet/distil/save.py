"""Write the student as a checkpoint folder that loralet and transformers can load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Tokenizer

from loralet.atomic import new_file, write_json
from loralet.hub.sentence_pooling import write_mean_pooling
from loralet.hub.tokenizer_config import special_tokens, tokenizer_config
from loralet.models.families import FAMILIES
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable


def save_student(
    folder: Path, weights: Weights, table: EncoderTable, tokenizer: Tokenizer, half: bool, pooled: bool
) -> None:
    """Write the tokenizer, the pooling, model.safetensors and, last, config.json. Then the folder is complete.

    Args:
        folder: the output folder; each file is written atomically.
        weights: the student's tensors, pooler included, fp32.
        table: the student's layer table.
        tokenizer: the teacher's tokenizer.
        half: write fp16.
        pooled: whether the pooler was trained; otherwise only the mean over the tokens was.
    """
    family = FAMILIES["bert"]
    described: dict[str, Any] = json.loads(tokenizer.to_str())
    with new_file(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if described["model"]["type"] == "WordPiece" and [number for _, number in words] == list(range(len(words))):
        with new_file(folder / "vocab.txt") as temporary:
            temporary.write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", tokenizer_config(tokenizer, table.longest))
    if not pooled:
        write_mean_pooling(folder, table.width)
    tensors = {family.tensor(name): (t.half() if half else t).contiguous() for name, t in weights.items()}
    with new_file(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    write_json(folder / "config.json", _config(table, tokenizer, half))


def _config(table: EncoderTable, tokenizer: Tokenizer, half: bool) -> dict[str, object]:
    padding = special_tokens(tokenizer).get("pad_token", "")
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "num_hidden_layers": table.layers,
        "hidden_size": table.width,
        "num_attention_heads": table.heads,
        "intermediate_size": table.feed_forward,
        "vocab_size": table.vocabulary,
        "max_position_embeddings": table.positions,
        "type_vocab_size": table.token_types,
        "hidden_act": table.activation,
        "layer_norm_eps": table.epsilon,
        "pad_token_id": tokenizer.token_to_id(padding) or 0,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "torch_dtype": "float16" if half else "float32",
    }
