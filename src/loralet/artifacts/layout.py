"""The layout of trained runs in one pack, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import PackShape
from loralet.adapters.spec import Method
from loralet.artifacts.artifact import Artifact
from loralet.errors import RunError
from loralet.models.table import EncoderTable


def layout_of(artifacts: Sequence[Artifact], table: EncoderTable) -> tuple[PackShape, list[Adapter], Method]:
    """The arguments of a :class:`loralet.adapters.layout.Layout` for artifacts that share head, label count and method.

    Args:
        artifacts: the runs; their tensors are not read.
        table: the encoder's layer table.
    """
    adapters = [Adapter(a.adapter.rank, a.adapter.scale, 0.0, _linears(a, table), seed=0) for a in artifacts]
    first = artifacts[0]
    shape = PackShape(table, first.as_task().outputs, first.head, pooling=first.pooling)
    return shape, adapters, first.adapter.method


def _linears(artifact: Artifact, table: EncoderTable) -> tuple[str, ...]:
    return tuple(f"layers.{i}.{target}" for i in range(table.layers) for target in artifact.adapter.targets)


def unfitting(artifacts: Sequence[Artifact], error: ValueError) -> RunError:
    """The error for tensors that do not match their artifact's configuration."""
    return RunError(f"{', '.join(a.id for a in artifacts)}: the tensors do not fit the adapter: {error}")


def settled(artifact: Artifact) -> Artifact:
    """A fully fine-tuned run as a head on its own encoder, which contains the trained pooler."""
    head = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("classifier")}
    return replace(artifact, head="mean" if artifact.head == "mean" else "pooler", tensors=head)
