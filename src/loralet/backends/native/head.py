"""Head and loss in one call into C: each adapter's mean loss over a batch, and the gradients of their sum.

To rounding it is what :mod:`loralet.models.head` and torch's autograd give; the tests compare the two.
It takes the frozen pooler, a pooler trained as well (with tanh, as BERT and RoBERTa have it), and the mean over tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.backends.native.attention import kernels

ACTIVATION = "tanh"
"""The pooler's activation that the kernel has."""


class HeadStruct(ctypes.Structure):
    """``Head`` of the kernels."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("sets", "rows", "width", "classes", "threads", "state_set", "pooler_set", "trained_set")
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "starts",
                "pooler",
                "pooler_bias",
                "classifier",
                "classifier_bias",
                "factors",
                "labels",
                "states",
            )
        ),
        *((name, ctypes.c_void_p) for name in ("losses", "grad_states")),
        *(
            (name, ctypes.c_void_p)
            for name in ("grad_pooler", "grad_pooler_bias", "grad_classifier", "grad_classifier_bias")
        ),
    ]


def head_pass(
    states: Float[Tensor, "j n d"],
    starts: Int[Tensor, "b_1"] | None,
    labels: Int[Tensor, "b"],
    factors: Float[Tensor, "k b d"] | None,
    frozen: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n d"] | None]:
    """Losses, and the gradient of the states in their type; those of the trained numbers are written where they belong.

    Args:
        states: one a row, the first token's (n = b), or all tokens' one after another; j is k, or 1 where no adapter changes them.
        starts: where each row's states begin, for the mean over tokens; None for the pooler.
        labels: class numbers, int64.
        factors: dropout of the features.
        frozen: ``pooler.weight`` and ``pooler.bias`` in fp32, where the pooler is not trained.
        trained: ``classifier.*``, and ``pooler.*`` where that is trained, each ``[k ...]`` cut out of one matrix of k rows.
        gradients: the same, cut out of another matrix of that size.

    Returns:
        Each adapter's mean loss in nats, and the gradient of the sum of them with respect to the states; None where all adapters share the states, as
        nothing trained lies behind those.

    Raises:
        IndexError: a label that is not a class.
    """
    sets, classes, width = trained["classifier.weight"].shape
    low, high = (int(x) for x in labels.aminmax())
    if low < 0 or high >= classes:
        raise IndexError(f"labels run from {low} to {high}; there are {classes} classes")
    values, labels = states.float().contiguous(), labels.long().contiguous()
    own = len(values) == sets
    losses, grad = torch.empty(sets), torch.empty_like(values) if own else None
    factors = None if factors is None else factors.contiguous()
    pooler = trained if "pooler.weight" in trained else frozen
    tensors = {
        "starts": starts,
        "factors": factors,
        "labels": labels,
        "states": values,
        "losses": losses,
        "grad_states": grad,
    }
    struct = HeadStruct(
        sets=sets,
        rows=len(labels),
        width=width,
        classes=classes,
        threads=torch.get_num_threads(),
        state_set=values.stride(0) if own else 0,
        pooler_set=trained["pooler.weight"].stride(0) if "pooler.weight" in trained else 0,
        trained_set=trained["classifier.weight"].stride(0),
        **{
            name: tensor.data_ptr()
            for name, tensor in (tensors | _tensors(pooler, trained, gradients)).items()
            if tensor is not None
        },
    )
    found = kernels(values)
    assert found is not None
    found["head_pass"](ctypes.byref(struct))
    return losses, None if grad is None else grad.to(states.dtype)


def _tensors(
    pooler: Mapping[str, Tensor], trained: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights and their gradients by the names of the kernel's fields; what is frozen has no gradient."""
    found: dict[str, Tensor] = {}
    for tensors, prefix in ((pooler, ""), (trained, ""), (gradients, "grad_")):
        for part in ("pooler", "classifier"):
            if f"{part}.weight" in tensors:
                found |= {f"{prefix}{part}": tensors[f"{part}.weight"], f"{prefix}{part}_bias": tensors[f"{part}.bias"]}
    return found
