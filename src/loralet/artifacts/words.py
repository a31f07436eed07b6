"""The files of the linear model on words in an adapter folder, read without torch.

words.json          the tokens, in order
words.safetensors   pairs (int32), idf and intercepts (fp32), coefficients (fp16); see loralet.tasks.words.WordModel
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from loralet.atomic import new_file
from loralet.errors import RunError
from loralet.hub.tensors import read_tensors
from loralet.tasks.words import WordModel

TOKENS, ARRAYS = "words.json", "words.safetensors"
TYPES = {"pairs": np.int32, "idf": np.float32, "coefficients": np.float16, "intercepts": np.float32}
"""Arrays of the file and their types."""


def write_words(folder: Path, model: WordModel) -> None:
    """Write both files. The coefficients of a fitted model are exact in fp16."""
    with new_file(folder / TOKENS) as temporary:
        temporary.write_text(json.dumps(list(model.tokens), ensure_ascii=False) + "\n", encoding="utf-8")
    arrays = {name: np.ascontiguousarray(getattr(model, name), kind) for name, kind in TYPES.items()}
    with new_file(folder / ARRAYS) as temporary:
        save_file(arrays, temporary)


def read_words(folder: Path, classes: int) -> WordModel:
    """Read both files.

    Args:
        folder: the adapter folder.
        classes: number of labels of the run.

    Raises:
        RunError: a file is missing.
        ValueError: a file is broken; all problems are listed.
    """
    for path in (folder / TOKENS, folder / ARRAYS):
        if not path.exists():
            raise RunError(
                f"{path} is missing: a hybrid cannot predict without it; copy the folder again, or train again"
            )
    tokens = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{TOKENS}: a list of strings is expected")
    arrays = read_tensors(folder / ARRAYS)
    problems = _problems(tokens, arrays, classes)
    if problems:
        raise ValueError("; ".join(problems))
    coefficients = arrays["coefficients"].astype(np.float32)
    return WordModel(tuple(tokens), arrays["pairs"], arrays["idf"], coefficients, arrays["intercepts"])


def _problems(tokens: list[str], arrays: dict[str, np.ndarray], classes: int) -> list[str]:
    """What is wrong with the content of the files; shapes are only checked if names and types are right."""
    problems = [f"{TOKENS} contains a token twice"] * (len(set(tokens)) != len(tokens))
    if set(arrays) != set(TYPES):
        return [*problems, f"{ARRAYS} has {', '.join(sorted(arrays))}; expected {', '.join(sorted(TYPES))}"]
    for name, kind in TYPES.items():
        if arrays[name].dtype != kind:
            problems.append(f"{name} is {arrays[name].dtype}; expected {np.dtype(kind)}")
        elif not np.isfinite(arrays[name]).all():
            problems.append(f"{name} has values that are not finite")
    pairs = arrays["pairs"]
    features = len(tokens) + len(pairs)
    shapes = {"pairs": (len(pairs), 2), "idf": (features,), "coefficients": (features, classes)}
    for name, shape in (shapes | {"intercepts": (classes,)}).items():
        if arrays[name].shape != shape:
            problems.append(f"{name} has shape {list(arrays[name].shape)}; expected {list(shape)}")
    if problems:
        return problems
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < len(tokens):
        return ["pairs has numbers that are not those of tokens"]
    keys = pairs[:, 0].astype(np.int64) * len(tokens) + pairs[:, 1]
    return ["pairs is not sorted"] if (np.diff(keys) <= 0).any() else []
