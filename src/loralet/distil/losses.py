"""Losses between the student's states and the teacher's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loralet.distil.forward import Arithmetic, narrowed, states
from loralet.distil.student import project
from loralet.models.forward import Padded, Weights
from loralet.models.heads import mean_over_tokens, pool
from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable

SHARES = {"tokens": 2.0, "sentence": 2.0, "similarity": 5.0, "pooled": 2.0, "pooled_similarity": 5.0}
"""Weight of each loss in the total; chosen by experiments on news texts."""

SMALLEST = 1e-8
"""Smallest product of two norms in a cosine; avoids division by zero."""


def losses_of(
    parameters: Weights,
    table: EncoderTable,
    batch: Padded,
    target: tuple[Float[Tensor, "n l e"] | None, Float[Tensor, "b e"]],
    arithmetic: Arithmetic,
    pooled: bool,
) -> dict[str, Tensor]:
    """The losses of a batch by name: those of :data:`SHARES` and their weighted sum ``total``.

    ``tokens``: 1 - cosine between each token's projected state and the teacher's, averaged over tokens and layers.
    ``sentence``: the same for the mean over tokens of the last layer. ``similarity``: mean squared difference between
    the cosines of all pairs of projected sentence embeddings and the cosines of the same pairs of the teacher.
    ``pooled`` and ``pooled_similarity``: the last two for the pooled first token, projected to the teacher's sentence
    embedding.

    Args:
        parameters: tensors of the student and of the projections, fp32.
        table: the student's layer table.
        batch: token ids and lengths.
        target: the teacher's states of the batch's n tokens without padding, at l layers (None: no loss of tokens), and
            its sentence embeddings.
        arithmetic: device, type and attention.
        pooled: whether to compute the pooled losses.
    """
    outputs = states(narrowed(parameters, arithmetic.dtype), table, batch, arithmetic.attend)
    inside = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.lengths[:, None]
    projections = {
        name: t.to(arithmetic.dtype) if name.startswith("projections.tokens") else t
        for name, t in parameters.items()
        if name.startswith("projections.")
    }
    token_states, sentences = target
    losses: dict[str, Tensor] = {}
    if token_states is not None:
        apart = [
            distance(project(projections, f"tokens.{i}", x[inside]).float(), token_states[:, i])
            for i, x in enumerate(outputs)
        ]
        losses["tokens"] = torch.stack(apart).mean()
    projected = project(projections, "sentence", mean_over_tokens(outputs[-1][None], batch.lengths)[0])
    losses |= {"sentence": distance(projected, sentences), "similarity": disagreement(projected, sentences)}
    if pooled:
        pooler = {name: parameters[name][None] for name in Pooling().tensors(table.width)}
        first = pool(outputs[-1][None, :, 0], pooler)[0]
        projected = project(projections, "pooled", first)
        losses |= {"pooled": distance(projected, sentences), "pooled_similarity": disagreement(projected, sentences)}
    return losses | {"total": torch.stack([SHARES[name] * loss for name, loss in losses.items()]).sum()}


def distance(student: Float[Tensor, "n e"], teacher: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    """Mean of 1 - cosine over the rows, from three sums per row, without normalised copies."""
    norms = torch.linalg.vector_norm(student, dim=-1) * torch.linalg.vector_norm(teacher, dim=-1)
    cosines: Tensor = (student * teacher).sum(-1) / norms.clamp(min=SMALLEST)
    return 1 - cosines.mean()


def disagreement(student: Float[Tensor, "b e"], teacher: Float[Tensor, "b e"]) -> Float[Tensor, ""]:
    """Mean squared difference between the cosines of all pairs of rows."""
    a, b = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return F.mse_loss(a @ a.T, b @ b.T)
