"""The teacher's states for every text, computed once, cached on disk and memory-mapped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import PackShape
from loralet.adapters.pack import Pack
from loralet.atomic import new_folder
from loralet.backends.choice import Chosen, choose_backend
from loralet.backends.torch import MULTIPLE
from loralet.config import ComputeOptions
from loralet.data.batches import gather
from loralet.data.order import sorted_batches
from loralet.data.tokens import Tokens
from loralet.distil.forward import Arithmetic, narrowed, states
from loralet.errors import DataError
from loralet.events import Advanced, Event
from loralet.hub.backbone import Backbone
from loralet.inference.evaluation import logits_of
from loralet.models.heads import mean_over_tokens

GROUP = 2048
"""Consecutive rows sorted by length together: little padding, and writes stay close together."""
BATCH_TOKENS = 2048
"""Tokens per batch, padding included. A teacher of width 384 was 1.6 times as fast as with 8,192 tokens, whose
feed-forward activations exceed the CPU cache."""
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Targets:
    """The teacher's states for many texts.

    Args:
        states: float16 ``[n l e]``: n tokens of all texts, concatenated; l layers; teacher width e. None: not matched.
        sentences: float16 ``[m e]``: mean over the tokens of the last layer, for each of m texts.
    """

    states: np.ndarray | None
    sentences: np.ndarray

    def of(self, tokens: Tokens, rows: np.ndarray) -> tuple[Float[Tensor, "n l e"] | None, Float[Tensor, "b e"]]:
        """Token states without padding, and sentence embeddings, of the given rows in their order, in fp32."""
        sentences = torch.from_numpy(self.sentences[rows]).float()
        if self.states is None:
            return None, sentences
        pieces = [self.states[tokens.starts[row] : tokens.starts[row + 1]] for row in rows]
        return torch.from_numpy(np.concatenate(pieces)).float(), sentences


def teacher_targets(
    teacher: Backbone,
    tokens: Tokens,
    layers: Sequence[int],
    arithmetic: Arithmetic,
    cache: Path,
    tell: Callable[[Event], None],
) -> Targets:
    """The teacher's states for the given texts, read from the cache if present.

    Args:
        teacher: the larger encoder.
        tokens: the texts, tokenised for the teacher and truncated.
        layers: layers to keep, counted from 1.
        arithmetic: device, type and attention.
        cache: the cache folder; entries depend on the teacher's fingerprint, the tokens, the layers and the type.
        tell: receives progress events.

    Raises:
        DataError: the disk has too little space for the states.
    """
    folder = _entry(cache, f"{teacher.fingerprint}/{list(layers)}/{arithmetic.dtype}", tokens)
    if not folder.exists():
        _require_space(cache, (len(tokens.ids) * len(layers) + len(tokens)) * teacher.table.width * 2)
        with new_folder(folder) as temporary:
            _compute(teacher, tokens, layers, arithmetic, temporary, tell)
    return Targets(*(np.load(folder / name, mmap_mode="r") for name in ("states.npy", "sentences.npy")))


def sentence_targets(
    teacher: Backbone, tokens: Tokens, compute: ComputeOptions, cache: Path, tell: Callable[[Event], None]
) -> Targets:
    """The teacher's sentence embeddings for the given texts, without token states, read from the cache if present.

    Arguments, events and errors are those of :func:`teacher_targets`; ``compute`` chooses the backend.
    """
    chosen = choose_backend(teacher.table, compute.precision, compute.backend)
    folder = _entry(cache, f"{teacher.fingerprint}/sentences/{chosen.dtype}", tokens)
    if not folder.exists():
        _require_space(cache, len(tokens) * teacher.table.width * 2)
        with new_folder(folder) as temporary:
            shape = (len(tokens), teacher.table.width)
            sentences = np.lib.format.open_memmap(temporary / "sentences.npy", "w+", np.float16, shape)
            for start, found in sentence_embeddings(teacher, tokens, chosen):
                end = start + len(found)
                sentences[start:end] = found.clip(-LARGEST, LARGEST)
                tell(Advanced("teacher's sentence embeddings", end, len(tokens)))
            sentences.flush()
    return Targets(None, np.load(folder / "sentences.npy", mmap_mode="r"))


def sentence_embeddings(
    encoder: Backbone, tokens: Tokens, chosen: Chosen
) -> Iterator[tuple[int, Float[np.ndarray, "b e"]]]:
    """The mean over the tokens of the last layer, for some texts at a time, with the number of the first of them.

    They are the logits of a run without an adapter whose classifier is the identity, so every backend computes them.

    Args:
        encoder: the encoder, ``e`` wide.
        tokens: the texts.
        chosen: backend and dtype that compute them.

    Yields:
        The number of the first text of a group of at most ``GROUP`` texts, and fp32 ``[texts of the group, e]``.
    """
    width = encoder.table.width
    shape = PackShape(encoder.table, width, "mean")
    pack = Pack(shape, [Adapter(rank=0, scale=0.0, dropout=0.0, linears=(), seed=0)])
    parameters = pack.fill([{"classifier.weight": torch.eye(width), "classifier.bias": torch.zeros(width)}])
    loaded = chosen.backend.load(encoder.weights, encoder.table, chosen.dtype)
    forward = loaded.program(pack).logits(parameters.to(chosen.backend.device))
    for start in range(0, len(tokens), GROUP):
        starts = tokens.starts[start : start + GROUP + 1]
        part = Tokens(tokens.ids[starts[0] : starts[-1]], starts - starts[0])
        yield start, logits_of(chosen.backend, forward, part, 1)[0]


def _entry(cache: Path, kind: str, tokens: Tokens) -> Path:
    """The folder in the cache for states of a kind."""
    digest = hashlib.sha256(kind.encode())
    digest.update(np.ascontiguousarray(tokens.starts, np.int64).data)
    digest.update(np.ascontiguousarray(tokens.ids, np.int32).data)
    return cache / "teachers" / digest.hexdigest()


def _require_space(cache: Path, size: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size > free:
        raise DataError(
            f"{cache}: the teacher's states need {size / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; "
            "set LORALET_CACHE to a folder on a larger disk, use fewer texts, or lower --max-length"
        )


@torch.no_grad()
def _compute(
    teacher: Backbone,
    tokens: Tokens,
    layers: Sequence[int],
    arithmetic: Arithmetic,
    folder: Path,
    tell: Callable[[Event], None],
) -> None:
    width, rows = teacher.table.width, len(tokens)
    kept = np.lib.format.open_memmap(folder / "states.npy", "w+", np.float16, (len(tokens.ids), len(layers), width))
    sentences = np.lib.format.open_memmap(folder / "sentences.npy", "w+", np.float16, (rows, width))
    weights = narrowed({name: t.to(arithmetic.device) for name, t in teacher.weights.items()}, arithmetic.dtype)
    done = 0
    for start in range(0, rows, GROUP):
        for batch in sorted_batches(tokens.lengths[start : start + GROUP], BATCH_TOKENS):
            batch = batch + start
            padded = gather(tokens, batch).padded(MULTIPLE, tokens.longest, arithmetic.device)
            outputs = states(weights, teacher.table, padded, arithmetic.attend)
            sentences[batch] = _narrow(mean_over_tokens(outputs[-1][None], padded.lengths)[0])
            chosen = _narrow(torch.stack([outputs[layer - 1] for layer in layers], dim=2))
            for row, length, found in zip(batch, padded.lengths.tolist(), chosen, strict=True):
                kept[tokens.starts[row] : tokens.starts[row + 1]] = found[:length]
            done += len(batch)
            tell(Advanced("teacher's states", done, rows))
    kept.flush()
    sentences.flush()


def _narrow(x: Tensor) -> np.ndarray:
    narrow: np.ndarray = x.clamp(-LARGEST, LARGEST).half().cpu().numpy()
    return narrow
