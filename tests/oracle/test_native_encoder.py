"""The native backend, compared with the torch backend: logits, losses and gradients of packs of all shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cache

import pytest
import torch
from backends import ORACLE, each_backend, each_native, each_native_and_type
from packs import (
    BATCH,
    LENGTHS,
    PLAIN,
    TABLES,
    TARGETS,
    TOLERANCE,
    Case,
    Result,
    apart,
    compute,
    cross_entropy,
    evaluate,
    make_batch,
    make_case,
    make_weights,
)
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.pack import Pack
from loralet.backends import torch as torch_backend
from loralet.backends.base import AdamWStep, Backend
from loralet.backends.batch import Batch
from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.support import CONDITIONS
from loralet.models.pooling import HeadKind
from loralet.models.table import EncoderTable


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def expected(kind: str, head: HeadKind, targets: str, dtype: torch.dtype) -> tuple[Case, Result]:
    """A case, and its results in torch."""
    case = make_case(TABLES[kind], head, targets, dtype)
    return case, compute(ORACLE, case)


def test_the_oracle_does_not_depend_on_the_order_in_which_parts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(tasks: Sequence[Callable[[], object]]) -> list[object]:
        return [task() for task in reversed(tasks)][::-1]

    case = make_case()
    before = compute(ORACLE, case)
    monkeypatch.setattr(torch_backend, "together", backwards)
    assert torch.equal(compute(ORACLE, case).logits, before.logits)


@each_native_and_type
@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", TABLES)
def test_logits_losses_and_gradients_match_torch(
    kind: str, targets: str, head: HeadKind, dtype: torch.dtype, backend: NativeBackend
) -> None:
    case, theirs = expected(kind, head, targets, dtype)
    tolerance = TOLERANCE[dtype] * (2 if kind == "wide" else 1)  # sums of three times as many values
    ours = compute(backend, case)
    moved = case.parameters + 0.1 * torch.randn(case.parameters.shape, generator=torch.Generator().manual_seed(3))
    other = compute(backend, replace(case, parameters=moved))
    assert torch.equal(evaluate(backend, case), ours.logits), "evaluation computes what training does"
    assert apart(ours.logits, theirs.logits) <= tolerance < apart(other.logits, theirs.logits)
    assert apart(ours.losses, theirs.losses) <= tolerance
    assert apart(ours.gradient, theirs.gradient) <= tolerance < apart(other.gradient, theirs.gradient)
    assert not torch.equal(other.losses, ours.losses)
    assert float(ours.gradient.abs().sum(1).min()) > 0


@each_native
def test_a_row_does_not_depend_on_the_other_rows_of_its_batch(backend: NativeBackend) -> None:
    case = make_case(targets="all-linear", dtype=torch.bfloat16)
    together = evaluate(backend, case)
    for i in range(len(LENGTHS)):
        assert torch.equal(evaluate(backend, case, BATCH.take(torch.tensor([i])))[:, 0], together[:, i])
    assert not torch.equal(together[:, 0], together[:, 1])


@each_native
@pytest.mark.parametrize("step", [None, 3])
def test_a_result_does_not_depend_on_the_threads(step: int | None, backend: NativeBackend) -> None:
    case = make_case(targets="all-linear", dtype=torch.bfloat16, dropout=0.2, head_dropout=0.1)
    once = compute(backend, case, step=step)
    for count in (2, 3):
        with threads(count):
            again = compute(backend, case, step=step)
        assert torch.equal(again.losses, once.losses)
        assert torch.equal(again.gradient, once.gradient)
    assert not torch.equal(compute(backend, case, step=4).gradient, once.gradient)


@each_native
@pytest.mark.parametrize("step", [None, 3])
def test_loss_and_gradient_of_an_adapter_do_not_depend_on_its_pack(step: int | None, backend: NativeBackend) -> None:
    case = make_case(head="trained-pooler", targets="all-linear", dropout=0.2, head_dropout=0.1)
    together = compute(backend, case, step=step)
    for i in range(3):
        alone = case.alone(i)
        own = compute(backend, alone, step=step)
        assert apart(own.losses, together.losses[i : i + 1]) <= 1e-6
        wanted = alone.pack.extract(own.gradient, 0)
        for name, tensor in case.pack.extract(together.gradient, i).items():
            assert apart(tensor, wanted[name]) <= TOLERANCE[torch.float32], name


@each_native
def test_adapters_on_different_linear_layers_and_the_longest_rows(backend: NativeBackend) -> None:
    adapters = [
        Adapter(4, 2.0, 0.0, ("layers.0.key", "layers.2.value"), 0),
        Adapter(8, 1.0, 0.0, ("layers.1.output",), 1),
        Adapter(3, 1.0, 0.0, ("layers.0.intermediate", "layers.2.query"), 2),
    ]
    case, batch = make_case(replace(PLAIN, positions=512), adapters=adapters), make_batch(torch.tensor([512, 1, 300]))
    ours, theirs = compute(backend, case, batch), compute(ORACLE, case, batch)
    assert apart(ours.logits, theirs.logits) <= TOLERANCE[torch.float32]
    assert apart(ours.gradient, theirs.gradient) <= TOLERANCE[torch.float32]
    assert apart(compute(ORACLE, case, batch.take(torch.tensor([0, 2]))).gradient, theirs.gradient) > 0.1


@cache
def dropped(kind: str, head: HeadKind, targets: str, dtype: torch.dtype) -> tuple[Case, Result]:
    """Four adapters, two of them with dropout, and their results in torch at step 5."""
    table = TABLES[kind]
    names = tuple(name for name in TARGETS[targets] if int(name.split(".")[1]) < table.layers)
    names = names or ("layers.0.query", "layers.0.key")
    adapters = [
        Adapter(4, 2.0, 0.3, names, 0),
        Adapter(8, 1.0, 0.0, names, 1),
        Adapter(20, 1.0, 0.1, names[-1:], 2),
        Adapter(0, 0.0, 0.0, (), 3),
    ]
    case = make_case(table, head, adapters=adapters, dtype=dtype)
    return case, compute(ORACLE, case, step=5)


@each_native_and_type
@pytest.mark.parametrize("head", ["pooler", "mean"])
@pytest.mark.parametrize("targets", [name for name in TARGETS if name != "none"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "one-layer"])
def test_dropout_on_the_adapters_matches_torch(
    kind: str, targets: str, head: HeadKind, dtype: torch.dtype, backend: NativeBackend
) -> None:
    case, theirs = dropped(kind, head, targets, dtype)
    ours, other = compute(backend, case, step=5), compute(backend, case, step=6)
    tolerance = TOLERANCE[dtype] / (1 - 0.3)  # kept values and their rounding errors are scaled by this
    for i, adapter in enumerate(case.pack.adapters):
        assert apart(ours.logits[i], theirs.logits[i]) <= tolerance, i
        assert apart(ours.gradient[i], theirs.gradient[i]) <= tolerance, i
        assert (not torch.equal(other.logits[i], ours.logits[i])) == (adapter.dropout > 0), i


@each_native
def test_a_part_of_a_batch_has_the_masks_of_the_whole_batch(backend: NativeBackend) -> None:
    case = make_case(targets="all-linear", dropout=0.2, head_dropout=0.3)
    rows = torch.tensor([7, 2, 4])
    whole, part = compute(backend, case, step=1), compute(backend, case, BATCH.take(rows), step=1)
    assert apart(part.logits, whole.logits[:, rows]) <= 1e-6
    renumbered = replace(BATCH.take(rows), first_tokens=None, row_numbers=None)
    assert apart(compute(backend, case, renumbered, step=1).logits, part.logits) > 0.01


@each_backend
@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_token_types_are_added(kind: str, backend: Backend) -> None:
    case = make_case(TABLES[kind])
    types = torch.randint(0, 2, BATCH.ids.shape, generator=torch.Generator().manual_seed(4))
    mixed, first = replace(BATCH, types=types), replace(BATCH, types=torch.zeros_like(types))
    ours, theirs = compute(backend, case, mixed), compute(ORACLE, case, mixed)
    assert apart(ours.logits, theirs.logits) <= TOLERANCE[torch.float32] < apart(evaluate(backend, case), ours.logits)
    assert apart(ours.gradient, theirs.gradient) <= TOLERANCE[torch.float32]
    assert apart(evaluate(backend, case, first), evaluate(backend, case)) <= TOLERANCE[torch.float32]


@each_backend
def test_row_weights_are_per_adapter(backend: Backend) -> None:
    """A zero weight excludes a row; weights are normalised; an adapter without rows has zero loss."""
    case = make_case(head="trained-pooler")
    weights = torch.ones(3, len(BATCH))
    weights[0, 5:], weights[1], weights[2] = 0, torch.arange(len(BATCH)) + 1.0, 0
    ours = compute(backend, case, replace(BATCH, row_weights=weights))
    theirs = compute(ORACLE, case, replace(BATCH, row_weights=weights))
    assert apart(ours.losses, theirs.losses) <= TOLERANCE[torch.float32]
    assert apart(ours.gradient, theirs.gradient) <= TOLERANCE[torch.float32]
    some = compute(backend, case, BATCH.take(torch.arange(5)))
    assert apart(ours.losses[0], some.losses[0]) <= 1e-6
    assert apart(ours.gradient[0], some.gradient[0]) <= TOLERANCE[torch.float32]
    assert apart(ours.losses[0], compute(backend, case).losses[0]) > 1e-3
    assert float(ours.losses[2]) == 0
    assert not ours.gradient[2].any()


def train(backend: Backend, case: Case, steps: int) -> tuple[Tensor, Tensor]:
    """Losses of each step, and the final parameters."""
    program = backend.load(case.weights, case.pack.shape.table, case.dtype).program(case.pack)
    parameters, losses = case.parameters.clone(), []
    moments, lr = (torch.zeros_like(parameters), torch.zeros_like(parameters)), torch.tensor([3e-3, 1e-3, 2e-3])
    for step in range(steps):
        batch = make_batch(torch.tensor([5, 12, 3, 9 + step % 3]))
        found, gradient = program.losses_and_gradient(parameters, batch, cross_entropy, step)
        corrections = 1 - 0.9 ** (step + 1), (1 - 0.999 ** (step + 1)) ** 0.5
        update = AdamWStep(lr, case.pack.decay(0.1), 1.0, 0.9, 0.999, 1e-8, *corrections)
        backend.adamw(parameters, gradient, moments, update, found.isfinite())
        losses.append(found)
    return torch.stack(losses), parameters


@cache
def trained() -> tuple[Case, Tensor, Tensor]:
    case = make_case(replace(PLAIN, layers=2), "trained-pooler", "all-linear", dropout=0.1, head_dropout=0.1)
    return case, *train(ORACLE, case, 20)


@each_native
def test_twenty_steps_with_dropout_match_torch(backend: NativeBackend) -> None:
    case, theirs, expected_parameters = trained()
    ours, parameters = train(backend, case, 20)
    assert (ours - theirs).abs().max() <= 1e-4
    assert apart(parameters, expected_parameters) <= 1e-4 < apart(parameters, case.parameters)
    plain = make_case(replace(PLAIN, layers=2), "trained-pooler", "all-linear")
    assert (train(backend, plain, 2)[0] - theirs[:2]).abs().max() > 1e-2


@each_backend
def test_a_forward_pass_is_not_changed_by_later_training(backend: Backend) -> None:
    case = make_case()
    program = backend.load(case.weights, PLAIN, torch.float32).program(case.pack)
    before = program.logits(case.parameters)
    expected_logits = before(BATCH)
    parameters = case.parameters
    _, gradient = program.losses_and_gradient(parameters, BATCH, cross_entropy)
    parameters -= gradient
    torch.full((4096, 4096), 1e30)  # freed memory would be overwritten
    assert torch.equal(before(BATCH), expected_logits)
    assert not torch.equal(program.logits(parameters)(BATCH), expected_logits)


@each_native
def test_packs_share_one_encoder_sequentially(backend: NativeBackend) -> None:
    """Larger and smaller packs alternate; they share the packed weights and the workspace."""
    cases = [make_case(targets="all-linear", head="mean"), make_case(targets="last-key"), make_case(targets="none")]
    encoder = backend.load(cases[0].weights, PLAIN, torch.float32)
    for case in (*cases, *cases):
        _, gradient = encoder.program(case.pack).losses_and_gradient(case.parameters, BATCH, cross_entropy)
        assert torch.equal(gradient, compute(backend, case).gradient)


@each_native_and_type
def test_full_fine_tuning_matches_torch(dtype: torch.dtype, backend: NativeBackend) -> None:
    """torch computes the gradients, with attention in C; evaluation runs entirely in C."""
    case = make_case(dtype=dtype, adapters=[Adapter(0, 0.0, 0.0, (), 0)], head_dropout=0.2, full=True)
    ours, theirs = compute(backend, case, step=2), compute(ORACLE, case, step=2)
    assert apart(ours.losses, theirs.losses) <= TOLERANCE[dtype]
    assert apart(ours.gradient, theirs.gradient) <= 2 * TOLERANCE[dtype]
    trained = replace(case, parameters=case.parameters - 0.1 * ours.gradient)
    logits = evaluate(backend, trained)
    assert apart(logits, evaluate(ORACLE, trained)) <= TOLERANCE[dtype] < apart(logits, evaluate(backend, case))


@each_native
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"activation": "relu"}, "activation is 'relu', it supports only 'gelu'"),
        ({"width": 48}, "width 48 is not a multiple of 32"),
        ({"heads": 8}, "the head size 8 is not a multiple of 16"),
        ({"feed_forward": 100}, "the feed-forward width 100 is not a multiple of 16"),
        ({"norm_first": True}, "norm_first"),
        ({"linear_bias": False}, "linear_bias"),
        ({"norm_bias": False}, "norm_bias"),
        ({"fused_attention": True}, "fused_attention"),
        ({"gated": True}, "gated"),
        ({"rotary_base": 10000.0}, "rotary_base"),
        ({"local_rotary_base": 10000.0}, "local_rotary_base"),
        ({"local_window": 64}, "local_window"),
        ({"global_every": 3}, "global_every"),
        ({"relative_buckets": 32}, "relative_buckets"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_unsupported_layer_table_is_rejected(
    changes: dict[str, object], reason: str, backend: NativeBackend
) -> None:
    assert backend.supports(PLAIN, torch.float32) is None
    table = replace(PLAIN, **changes)
    assert reason in (backend.supports(table, torch.float32) or "")
    with pytest.raises(ValueError, match=f"the native backend cannot compute this encoder: .*{reason}"):
        backend.load(make_weights(PLAIN), table, torch.float32)


@dataclass(frozen=True)
class LaterTable(EncoderTable):
    """A layer table with a field unknown to the backends."""

    talking_heads: bool = False


@each_backend
def test_an_unknown_field_of_the_layer_table_is_rejected(backend: Backend) -> None:
    assert set(CONDITIONS) == {field.name for field in fields(EncoderTable)}
    later = LaterTable(**{field.name: getattr(PLAIN, field.name) for field in fields(PLAIN)})
    assert "talking_heads" in (backend.supports(later, torch.float32) or "")


@each_native
def test_unsupported_dtypes_and_methods_are_rejected(backend: NativeBackend) -> None:
    assert "float64" in (backend.supports(PLAIN, torch.float64) or "")
    assert "a-method" in (backend.supports(PLAIN, torch.float32, "a-method") or "")
    case = make_case()
    other = Pack(case.pack.shape, case.pack.adapters)
    other.method = type("Method", (), {"name": "a-method"})()
    with pytest.raises(ValueError, match="a-method"):
        backend.load(case.weights, PLAIN, torch.float32).program(other)


@each_native
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda b: replace(b, ids=b.ids.index_fill(0, torch.tensor([3]), 50)),
            r"token ids range from \d+ to 50; they must be from 0 to 49",
        ),
        (lambda b: replace(b, ids=b.ids.index_fill(0, torch.tensor([3]), -1)), "token ids range from -1"),
        (lambda b: replace(b, types=torch.full_like(b.ids, 2)), "token types range from 2 to 2"),
        (lambda b: make_batch(torch.tensor([80, 0])), "0 to 80 tokens"),
        (lambda b: make_batch(torch.tensor([81, 3])), "3 to 81 tokens; they must have 1 to 80"),
        (lambda b: replace(b, ids=b.ids[:-1]), "do not match"),
        (lambda b: replace(b, offsets=b.offsets + 1), "do not match"),
        (lambda b: make_batch(torch.tensor([], dtype=torch.long)), "0 rows"),
    ],
    ids=["id", "negative", "type", "empty", "long", "ids", "offsets", "none"],
)
def test_out_of_range_inputs_are_rejected(
    wrong: Callable[[Batch], Batch], message: str, backend: NativeBackend
) -> None:
    case = make_case()
    assert evaluate(backend, case).isfinite().all()
    with pytest.raises(IndexError, match=message):
        evaluate(backend, case, wrong(BATCH))
    with pytest.raises(IndexError, match=message):
        compute(backend, case, wrong(BATCH))
