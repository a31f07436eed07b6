"""The compiled kernels as typed Python: one method for each kernel, and structures that keep their tensors alive.

This is the only module that takes a tensor's address. A kernel gets addresses from a :class:`Structure`, which holds
every tensor that it points to, or from an argument of the method that calls it; so no operand is freed too early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from cffi import FFI
from torch import Tensor

from loralet.backends.native.build import INSTRUCTION_SETS, SOURCES, NativeUnavailable, compiled, wanted_instructions

HEADER = SOURCES / "api.h"

TYPES: dict[str, tuple[torch.dtype, ...]] = {
    "float *": (torch.float32,),
    "int64_t *": (torch.int64,),
    "uint8_t *": (torch.bool, torch.uint8),
    "void *": (torch.float32, torch.bfloat16, torch.uint8),
}
"""Types of the tensors that a pointer of the header may point to."""


@cache
def declarations() -> FFI:
    """The structures and functions of ``csrc/api.h``."""
    ffi = FFI()
    lines = HEADER.read_text(encoding="utf-8").splitlines()
    ffi.cdef("\n".join(line for line in lines if not line.startswith("#")))
    return ffi


@cache
def _pointers(kind: str) -> dict[str, str]:
    """What each pointer field of a structure points to, as C writes it without ``const``."""
    found = {}
    for name, field in declarations().typeof(kind).fields:
        element = field.type.item if field.type.kind == "array" else field.type
        if element.kind == "pointer":
            found[name] = element.cname.removeprefix("const ")
    return found


class Place(NamedTuple):
    """Where a field points to.

    Args:
        to: a tensor or structures.
        offset: of the first value, or structure, that is meant.
        strided: the first axis of the tensor may have a stride of its own, which the structure says elsewhere.
    """

    to: Tensor | Structure
    offset: int = 0
    strided: bool = False


Number = int | float | Sequence[int] | Mapping[str, int | float | Sequence[int]]
"""The value of a field that is not a pointer: a number, an array of them, or a structure within the structure."""


class Structure:
    """C structures of one kind, one after another, with everything that they point to; all zero at first.

    Args:
        kind: name of the structure in ``csrc/api.h``.
        count: how many.
    """

    def __init__(self, kind: str, count: int = 1) -> None:
        self.kind, self.count = kind, count
        self.data = declarations().new(f"{kind}[]", count)
        self._held: dict[tuple[int, str, int | None], Tensor | Structure] = {}

    def copy(self) -> Structure:
        """The same once more, to be changed independently."""
        other = Structure(self.kind, self.count)
        declarations().memmove(other.data, self.data, declarations().sizeof(self.data))
        other._held = dict(self._held)
        return other

    def set(self, index: int = 0, /, **numbers: Number) -> None:
        """Set fields that are not pointers."""
        one = self.data[index]
        for name, number in numbers.items():
            setattr(one, name, number)

    def point(self, index: int = 0, at: int | None = None, /, **fields: Place | Tensor | Structure | None) -> None:
        """Point fields to tensors or structures, which are kept alive; None leaves a field null.

        Args:
            index: of the structure.
            at: place in a field that is an array.
            fields: dense tensors of the types that the fields point to, or structures.

        Raises:
            ValueError: a tensor is of another type, is not dense, or is not on the CPU.
        """
        one, pointers, cast = self.data[index], _pointers(self.kind), declarations().cast
        for name, field in fields.items():
            if field is None:
                continue
            to, offset, strided = field if isinstance(field, Place) else (field, 0, False)
            self._held[index, name, at] = to
            if isinstance(to, Structure):
                address = to.data + offset
            else:
                if to.dtype not in TYPES[pointers[name]] or not (strided or to.is_contiguous()) or not to.is_cpu:
                    _refuse(to, pointers[name], name)
                if strided or offset:
                    _require_inside(to, pointers[name], name, offset)
                address = cast("void *", to.data_ptr() + offset * to.element_size())
            if at is None:
                setattr(one, name, address)
            else:
                getattr(one, name)[at] = address


def _require_inside(tensor: Tensor, pointer: str, name: str, offset: int) -> None:
    """Check that a tensor's rows are dense, and that an offset lies within it.

    Raises:
        ValueError: see :meth:`Structure.point`.
    """
    step, dense = 1, True
    for size, stride in zip(reversed(tensor.shape[1:]), reversed(tensor.stride()[1:]), strict=True):
        dense, step = dense and (size == 1 or stride == step), step * size
    if not dense or (tensor.dim() < 2 and not tensor.is_contiguous()) or not 0 <= offset < max(1, tensor.numel()):
        _refuse(tensor, pointer, f"{name}, from value {offset} on,")


def _refuse(tensor: Tensor, pointer: str, name: str) -> NoReturn:
    raise ValueError(
        f"{name} must be dense, on the CPU and a C {pointer}; it is {tensor.dtype} with shape {tuple(tensor.shape)}, "
        f"strides {tensor.stride()}, on {tensor.device}"
    )


def _address(tensor: Tensor, pointer: str, name: str) -> object:
    """The address of a method's argument, which the method holds.

    Raises:
        ValueError: see :meth:`Structure.point`.
    """
    if tensor.dtype not in TYPES[pointer] or not tensor.is_contiguous() or not tensor.is_cpu:
        _refuse(tensor, pointer, name)
    return declarations().cast("void *", tensor.data_ptr())


class Kernels:
    """The kernels of one instruction set. Every method raises MemoryError where there is no memory.

    Args:
        path: the compiled library.
        instructions: its instruction set.

    Raises:
        OSError: it cannot be loaded.
    """

    def __init__(self, path: Path, instructions: str) -> None:
        self.instructions = instructions
        self._library = declarations().dlopen(str(path))

    @property
    def words(self) -> str:
        """The instruction set, for the user."""
        return INSTRUCTION_SETS[self.instructions].words

    def pack_weights(self, packings: Structure) -> None:
        """Pack the weights of several linear layers (``WeightPacking``)."""
        self._check(self._library.pack_weights(packings.data, packings.count, torch.get_num_threads()))

    def encoder_bytes(self, encoder: Structure) -> int:
        """Bytes of the activations that a batch needs between forward and backward pass (``Encoder``)."""
        size = declarations().new("int64_t *")
        self._check(self._library.encoder_bytes(encoder.data, size))
        return int(size[0])

    def encoder_forward(self, encoder: Structure, out: Tensor, activations: Tensor | None) -> None:
        """The last states of a batch (``Encoder``), to ``out``; ``activations`` where a backward pass follows."""
        kept = declarations().NULL if activations is None else _address(activations, "void *", "activations")
        self._check(self._library.encoder_forward(encoder.data, _address(out, "void *", "out"), kept))

    def encoder_backward(self, encoder: Structure, grad: Tensor, activations: Tensor) -> None:
        """The weights' gradients of a batch (``Encoder``) from the gradient of its last states."""
        kept = _address(activations, "void *", "activations")
        self._check(self._library.encoder_backward(encoder.data, _address(grad, "void *", "grad"), kept))

    def low_rank_gradients(self, gradients: Structure) -> None:
        """The gradients of A and B of several linear layers (``LowRankGradients``)."""
        self._check(self._library.low_rank_gradients(gradients.data, gradients.count, torch.get_num_threads()))

    def attention_forward(self, attention: Structure) -> None:
        """Attention (``Attention``)."""
        self._check(self._library.attention_forward(attention.data))

    def attention_backward(self, attention: Structure) -> None:
        """The gradients of query, key and value (``Attention``)."""
        self._check(self._library.attention_backward(attention.data))

    def head_forward(self, head: Structure) -> None:
        """Features and logits (``Head``)."""
        self._check(self._library.head_forward(head.data))

    def head_backward(self, head: Structure) -> None:
        """The gradients of states, pooler and classifier (``Head``)."""
        self._check(self._library.head_backward(head.data))

    def adamw(self, step: Structure) -> None:
        """One optimiser step (``AdamW``)."""
        self._check(self._library.adamw(step.data))

    def dropout_factors(self, mask: Structure, index: int, first_token: int, out: Tensor) -> None:
        """The factors of a linear layer's input, ``out`` ``[t d]``; for the tests (``Mask``)."""
        address = _address(out, "float *", "out")
        self._check(self._library.dropout_factors(mask.data, index, first_token, *out.shape, address))

    def fail_allocation_after(self, allocations: int) -> None:
        """Let that many allocations succeed and the next one fail; below 0: none fails. For the tests."""
        self._check(self._library.fail_allocation_after(allocations))

    def live_allocations(self) -> int:
        """Blocks that the kernels have not released, workspaces left out; 0 between two calls. For the tests."""
        count = declarations().new("int64_t *")
        self._check(self._library.live_allocations(count))
        return int(count[0])

    def _check(self, status: int) -> None:
        if status == self._library.OUT_OF_MEMORY:
            raise MemoryError("the native backend ran out of memory: use a smaller batch, or fewer runs in a pack")


@cache
def _open(path: Path, instructions: str) -> Kernels:
    return Kernels(path, instructions)


def load_kernels(instructions: str | None = None, sources: Path = SOURCES) -> Kernels:
    """The kernels for an instruction set, compiled if need be.

    torch is loaded before the library, so both use one OpenMP runtime and one pool of threads.

    Args:
        instructions: one of :data:`loralet.backends.native.build.INSTRUCTION_SETS`; None: the one that ``LORALET_ISA``
            names, else the best of this machine that the compiler knows.
        sources: folder of the C files.

    Raises:
        NativeUnavailable: there are none, for the reason in its text.
    """
    failures = []
    for name in wanted_instructions(instructions):
        try:
            return _open(compiled(name, sources), name)
        except NativeUnavailable as failure:
            failures.append(failure)
        except OSError as error:
            failures.append(NativeUnavailable(f"the compiled kernels cannot be loaded ({error})"))
    raise failures[0]
