"""Initialisation of the student: its layer table, its weights, and the projections to the teacher's states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.pack import INITIALIZER_RANGE, stream
from loralet.config import DistillConfig
from loralet.errors import ConfigError
from loralet.hub.backbone import Backbone
from loralet.models.forward import Weights
from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable


def student_table(config: DistillConfig, teacher: EncoderTable) -> EncoderTable:
    """The student's layer table: sizes from the options, the teacher's vocabulary, at most the teacher's positions.

    Raises:
        ConfigError: sizes that do not fit the teacher. One message lists all of them.
    """
    problems: list[str] = []
    widest = min(teacher.width, teacher.embedding_width or teacher.width)
    if config.width > widest:
        problems.append(f"width is {config.width}: it must be at most {widest}, the width of the teacher's embeddings")
    if config.layers > teacher.layers:
        problems.append(f"layers is {config.layers}: the teacher has {teacher.layers}")
    if config.match and config.match[-1] > teacher.layers:
        problems.append(f"match is {' '.join(map(str, config.match))}: the teacher has {teacher.layers} layers")
    if problems:
        raise ConfigError.listing(problems)
    return EncoderTable(
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        feed_forward=config.feed_forward,
        vocabulary=teacher.vocabulary,
        positions=min(config.positions, teacher.longest),
    )


def matched_layers(teacher: int, student: int, given: tuple[int, ...]) -> tuple[int, ...]:
    """The teacher layer, counted from 1, that each student layer matches. Example: 3 and 6 for two layers of six."""
    return given or tuple((i * teacher + student // 2) // student for i in range(1, student + 1))


def start_student(
    teacher: Backbone, table: EncoderTable, layers: Sequence[int], counts: Int[np.ndarray, "v"], seed: int
) -> Weights:
    """Initial weights of the student.

    A student whose layers have the form of the teacher's starts with the matched ones, and with the teacher's
    embeddings and pooler, as DistilBERT does (Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3). Any other
    has compressed embeddings; other weights are N(0, 0.02), biases zero, as in BERT.

    Args:
        teacher: the larger encoder.
        table: the student's layer table.
        layers: the teacher layer, counted from 1, that each student layer matches.
        counts: frequency of each token in the texts.
        seed: seed of the random weights.
    """
    generator = stream(seed, "student")
    if has_form(table, teacher.table):
        weights = copied_layers(teacher, table, layers)
    else:
        weights = compressed_embeddings(teacher, table, counts)
    for name, size in (table.tensors() | Pooling().tensors(table.width)).items():
        if name in weights:
            continue
        if name.endswith("norm.weight"):
            weights[name] = torch.ones(size)
        elif name.endswith("bias"):
            weights[name] = torch.zeros(size)
        else:
            weights[name] = torch.empty(size).normal_(0, INITIALIZER_RANGE, generator=generator)
    return weights


def has_form(table: EncoderTable, teacher: EncoderTable) -> bool:
    """Whether a student differs from its teacher only in the number of layers and positions."""
    return replace(teacher, layers=table.layers, positions=table.positions) == table


def copied_layers(teacher: Backbone, table: EncoderTable, layers: Sequence[int]) -> Weights:
    """Copies in fp32 of the teacher's embeddings, of the given layers and of its pooler, if it has one.

    Args:
        teacher: the larger encoder.
        table: the student's layer table: the teacher's with fewer layers and at most its positions.
        layers: the teacher's layers, counted from 1.
    """
    sources = {name: name for name in table.tensors() if not name.startswith("layers.")}
    for own, given in enumerate(layers):
        start = f"layers.{own}."
        sources |= {
            name: f"layers.{given - 1}.{name.removeprefix(start)}" for name in table.tensors() if name.startswith(start)
        }
    if teacher.has_pooler:
        sources |= {name: name for name in Pooling().tensors(table.width)}
    weights = {name: teacher.weights[source].float().clone() for name, source in sources.items()}
    weights["embeddings.position"] = weights["embeddings.position"][: table.positions].clone()
    return weights


def given_student(start: Backbone, teacher: Backbone, table: EncoderTable) -> Weights:
    """Initial weights from an encoder of the student's sizes with the teacher's tokenizer.

    Args:
        start: the encoder, with a pooler.
        teacher: the encoder whose tokenizer the student gets.
        table: the student's layers, in which every field must equal that of ``start``.

    Returns:
        Copies of the weights in fp32, named as in :func:`start_student`.

    Raises:
        ConfigError: other sizes, another tokenizer, or no pooler.
    """
    problems = [
        f"{name} is {getattr(start.table, name)}, the options say {getattr(table, name)}"
        for name in (field.name for field in fields(EncoderTable))
        if getattr(start.table, name) != getattr(table, name)
    ]
    if start.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
        problems.append("the tokenizer is not the teacher's")
    if not start.has_pooler:
        problems.append("the encoder has no pooler")
    if problems:
        raise ConfigError.listing([f"start is {start.name}: {problem}" for problem in problems])
    return {name: tensor.float().clone() for name, tensor in start.weights.items()}


def compressed_embeddings(teacher: Backbone, table: EncoderTable, counts: Int[np.ndarray, "v"]) -> Weights:
    """Project the teacher's word, position and type embeddings onto the principal axes of its word embeddings.

    The weight of a token is its frequency in the texts plus one, so that unseen tokens count a little. The axes are
    those of the centred embeddings. The centre is added to the type embedding, which every token has, so the sum of the
    three embeddings is the projection of the teacher's sum. One common factor gives the student's word embeddings the
    root mean square of the teacher's. The result has no position embeddings if the teacher has none.
    """
    w, source = teacher.weights, teacher.table
    word = w["embeddings.word"].double()
    share = torch.from_numpy(counts).double() + 1
    share /= share.sum()
    centre = share @ word
    centred = word - centre
    _, vectors = torch.linalg.eigh(centred.T @ (centred * share[:, None]))
    axes = vectors.flip(1)[:, : table.width]
    words = centred @ axes
    factor = (_weighted_rms(word, share) / _weighted_rms(words, share).clamp(min=1e-12)).item()
    types = torch.zeros(table.token_types, word.shape[1], dtype=word.dtype)
    if source.token_types:
        given = w["embeddings.type"].double()
        types[:] = given[torch.arange(table.token_types).clamp(max=source.token_types - 1)]
    tables = {"word": words}
    if "embeddings.position" in w:
        position = w["embeddings.position"][source.first_position :][: table.positions].double()
        middle = position.mean(0)
        types += middle
        tables["position"] = (position - middle) @ axes
    tables["type"] = (types + centre) @ axes
    return {f"embeddings.{name}": (table * factor).float().contiguous() for name, table in tables.items()}


def _weighted_rms(table: Float[Tensor, "v e"], share: Float[Tensor, "v"]) -> Tensor:
    return (share @ table.square().mean(1)).sqrt()


def start_projections(student: int, teacher: int, layers: int, seed: int) -> Weights:
    """Linear projections from the student's states to the teacher's, discarded after training.

    ``layers`` is the number of layers whose token states are matched. Weights are the identity if both are equally
    wide, otherwise U(-1/sqrt(d), 1/sqrt(d)); biases are zero.
    """
    generator = stream(seed, "projections")
    projections: Weights = {}
    for name in (*(f"projections.tokens.{i}" for i in range(layers)), "projections.sentence", "projections.pooled"):
        bound = student**-0.5
        random = torch.empty(teacher, student).uniform_(-bound, bound, generator=generator)
        projections[f"{name}.weight"] = torch.eye(student) if student == teacher else random
        projections[f"{name}.bias"] = torch.zeros(teacher)
    return projections


def project(projections: Weights, name: str, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
    """Apply a projection to ``x``, in the type of its weight."""
    weight = projections[f"projections.{name}.weight"]
    return F.linear(x.to(weight.dtype), weight, projections[f"projections.{name}.bias"])
