"""How far the student's states are from the teacher's."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loralet.distil.forward import Arithmetic, narrowed, states
from loralet.distil.student import project
from loralet.models.forward import Padded, Weights
from loralet.models.heads import Pooling, mean_over_tokens, pool
from loralet.models.table import EncoderTable

SHARES = {"tokens": 2.0, "sentence": 2.0, "similarity": 5.0, "pooled": 2.0, "pooled_similarity": 5.0}
"""What each loss counts in the total; found by trial on news texts."""

SMALLEST = 1e-8
"""Product of two norms below which a cosine counts as 0."""


def losses_of(
    parameters: Weights,
    table: EncoderTable,
    batch: Padded,
    target: tuple[Float[Tensor, "n l e"], Float[Tensor, "b e"]],
    arithmetic: Arithmetic,
    pooled: bool,
) -> dict[str, Tensor]:
    """The losses of a batch by name, those of :data:`SHARES` and their ``total``.

    ``tokens``: 1 - cosine of every token's projected state and the teacher's, mean over tokens and layers. ``sentence``:
    the same of the mean over tokens of the last layer. ``similarity``: mean squared difference of the cosines between all
    pairs of the batch's projected sentence embeddings and of the teacher's. ``pooled`` and ``pooled_similarity``: those two
    of the pooled first token, projected to the teacher's sentence embedding.

    Args:
        parameters: the student's tensors and the projections, in fp32.
        table: the student's layer table.
        batch: token ids and lengths.
        target: the teacher's states of the batch's n tokens, padding left out, at l layers, and its sentence embeddings.
        arithmetic: how to compute.
        pooled: whether the pooled losses are wanted.
    """
    outputs = states(narrowed(parameters, arithmetic.dtype), table, batch, arithmetic.attend)
    inside = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.lengths[:, None]
    projections = {
        name: t.to(arithmetic.dtype) if name.startswith("projections.tokens") else t
        for name, t in parameters.items()
        if name.startswith("projections.")
    }
    token_states, sentences = target
    apart = [
        distance(project(projections, f"tokens.{i}", x[inside]).float(), token_states[:, i])
        for i, x in enumerate(outputs)
    ]
    losses = {"tokens": torch.stack(apart).mean()}
    own = project(projections, "sentence", mean_over_tokens(outputs[-1][None], batch.lengths)[0])
    losses |= {"sentence": distance(own, sentences), "similarity": disagreement(own, sentences)}
    if pooled:
        pooler = {name: parameters[name][None] for name in Pooling().tensors(table.width)}
        first = pool(outputs[-1][None, :, 0], pooler)[0]
        own = project(projections, "pooled", first)
        losses |= {"pooled": distance(own, sentences), "pooled_similarity": disagreement(own, sentences)}
    return losses | {"total": torch.stack([SHARES[name] * loss for name, loss in losses.items()]).sum()}


def distance(own: Float[Tensor, "n e"], wanted: Float[Tensor, "n e"]) -> Float[Tensor, ""]:
    """1 - cosine, mean over the rows; from three sums a row, with no normalised copy of either side."""
    norms = torch.linalg.vector_norm(own, dim=-1) * torch.linalg.vector_norm(wanted, dim=-1)
    cosines: Tensor = (own * wanted).sum(-1) / norms.clamp(min=SMALLEST)
    return 1 - cosines.mean()


def disagreement(own: Float[Tensor, "b e"], wanted: Float[Tensor, "b e"]) -> Float[Tensor, ""]:
    """Mean squared difference of the cosines of all pairs of rows."""
    a, b = F.normalize(own, dim=-1), F.normalize(wanted, dim=-1)
    return F.mse_loss(a @ a.T, b @ b.T)
