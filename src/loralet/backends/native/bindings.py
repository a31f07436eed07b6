"""Typed Python interface of the compiled kernels: one method per kernel, and structures that keep arrays alive.

Only this module takes the address of an array. Addresses come from a :class:`Structure`, which holds every array that
it points to, or from an argument of the calling method. So no operand is freed too early.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import numpy as np

from loralet.backends.native import api
from loralet.backends.native.arrays import BF16, FP32, empty
from loralet.backends.native.build import (
    INSTRUCTION_SETS,
    SOURCES,
    CompilerUnfinished,
    NativeUnavailable,
    compiled,
    prebuilt,
    wanted_instructions,
)
from loralet.backends.native.cdata import CData, Declarations
from loralet.backends.native.openmp import load_openmp, missing_runtime
from loralet.runtime import thread_count

HEADER = SOURCES / "api.h"

TYPES: dict[str, tuple[np.dtype, ...]] = {
    "float *": (FP32,),
    "int64_t *": (np.dtype(np.int64),),
    "uint8_t *": (np.dtype(np.bool_), np.dtype(np.uint8)),
    "uint16_t *": (BF16,),
    "void *": (FP32, BF16, np.dtype(np.uint8)),
}
"""Array types that each pointer type of the header accepts."""


def header() -> str:
    """The content of ``csrc/api.h``."""
    return HEADER.read_text(encoding="utf-8")


def digest_of(text: str) -> str:
    """The hash by which ``api.py`` names the header that it was made from."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> Declarations:
    """The declarations of a header. Lines that begin with # are skipped."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef("\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return cast(Declarations, ffi)


@cache
def declarations() -> Declarations:
    """The structures and functions of ``csrc/api.h``: from ``api.py`` if that is up to date, else parsed."""
    text = header()
    if digest_of(text) == api.HEADER:
        return cast(Declarations, api.ffi)
    return parse(text)


@cache
def _pointers(kind: str) -> dict[str, str]:
    """The C type of each pointer field of a structure, without ``const``."""
    found = {}
    for name, field in declarations().typeof(kind).fields:
        element = field.type.item if field.type.kind == "array" else field.type
        if element.kind == "pointer":
            found[name] = element.cname.removeprefix("const ")
    return found


class Place(NamedTuple):
    """The target of a pointer field.

    Args:
        to: an array or structures.
        offset: index of the first value or structure.
        strided: whether the first axis of the array may have any stride, which another field of the structure gives.
    """

    to: np.ndarray | Structure
    offset: int = 0
    strided: bool = False

    def after(self, values: int) -> Place:
        """The place that many values or structures further."""
        return self._replace(offset=self.offset + values)


Number = int | float | Sequence[int] | Mapping[str, int | float | Sequence[int]]
"""The value of a non-pointer field: a number, an array of numbers, or a nested structure."""


class Structure:
    """An array of C structures of one kind, initially zero. It holds everything that the structures point to.

    Args:
        kind: name of the structure in ``csrc/api.h``.
        count: number of structures.
    """

    def __init__(self, kind: str, count: int = 1) -> None:
        self.kind, self.count = kind, count
        self.data = declarations().new(f"{kind}[]", count)
        self._held: dict[tuple[int, str, int | None], np.ndarray | Structure] = {}

    def copy(self) -> Structure:
        """A copy that can be changed independently."""
        other = Structure(self.kind, self.count)
        declarations().memmove(other.data, self.data, declarations().sizeof(self.data))
        other._held = dict(self._held)
        return other

    def set(self, index: int = 0, /, **numbers: Number) -> None:
        """Set non-pointer fields."""
        one = self.data[index]
        for name, number in numbers.items():
            setattr(one, name, number)

    def point(self, index: int = 0, at: int | None = None, /, **fields: Place | np.ndarray | Structure | None) -> None:
        """Point fields to arrays or structures, which are kept alive. None leaves a field as it is.

        Args:
            index: index of the structure.
            at: index within an array field.
            fields: contiguous arrays of the types that the fields point to, or structures.

        Raises:
            ValueError: an array has another type or is not contiguous.
        """
        one, pointers = self.data[index], _pointers(self.kind)
        for name, field in fields.items():
            if field is None:
                continue
            to, offset, strided = field if isinstance(field, Place) else (field, 0, False)
            self._held[index, name, at] = to
            if isinstance(to, Structure):
                address = to.data + offset
            else:
                if to.dtype not in TYPES[pointers[name]] or not (strided or to.flags.c_contiguous):
                    _refuse(to, pointers[name], name)
                if strided or offset:
                    _require_inside(to, pointers[name], name, offset)
                address = declarations().cast("void *", _data(to) + offset * to.itemsize)
            if at is None:
                setattr(one, name, address)
            else:
                cast(CData, getattr(one, name))[at] = address


def _data(array: np.ndarray) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _require_inside(array: np.ndarray, pointer: str, name: str, offset: int) -> None:
    """Check that the rows of an array are contiguous and that an offset lies within it.

    Raises:
        ValueError: see :meth:`Structure.point`.
    """
    step, dense = array.itemsize, True
    for size, stride in zip(reversed(array.shape[1:]), reversed(array.strides[1:]), strict=True):
        dense, step = dense and (size == 1 or stride == step), step * size
    if not dense or (array.ndim < 2 and not array.flags.c_contiguous) or not 0 <= offset < max(1, array.size):
        _refuse(array, pointer, f"{name}, from offset {offset},")


def _refuse(array: np.ndarray, pointer: str, name: str) -> NoReturn:
    strides = tuple(stride // array.itemsize for stride in array.strides)
    raise ValueError(
        f"{name} must be contiguous and a C {pointer}; it is {array.dtype} with shape {array.shape}, strides {strides}"
    )


def _address(array: np.ndarray, pointer: str, name: str) -> CData:
    """The address of a method's argument, which the method keeps alive.

    Raises:
        ValueError: see :meth:`Structure.point`.
    """
    if array.dtype not in TYPES[pointer] or not array.flags.c_contiguous:
        _refuse(array, pointer, name)
    return declarations().cast("void *", _data(array))


class Kernels:
    """The kernels of one instruction set. Methods raise MemoryError if memory runs out.

    Args:
        path: the compiled library.
        instructions: its instruction set.
        note: why a better instruction set is not used; empty if there is none, or if it cannot be compiled.

    Raises:
        OSError: the library cannot be loaded.
    """

    def __init__(self, path: Path, instructions: str, note: str = "") -> None:
        self.instructions, self.note = instructions, note
        self._library = declarations().dlopen(str(path))

    @property
    def words(self) -> str:
        """Display name of the instruction set."""
        return INSTRUCTION_SETS[self.instructions].words + (f" ({self.note})" if self.note else "")

    def allow_tiles(self) -> bool:
        """Ask the operating system for the right to use tiles; True if these kernels use none."""
        allowed = declarations().new("int64_t *")
        self._check(self._library.allow_tiles(allowed))
        return bool(allowed[0])

    def pack_weights(self, packings: Structure) -> None:
        """Pack the weights of several linear layers (``WeightPacking``)."""
        self._check(self._library.pack_weights(packings.data, packings.count, thread_count()))

    def encoder_bytes(self, encoder: Structure) -> int:
        """Bytes of activations between the forward and the backward pass of a batch (``Encoder``)."""
        size = declarations().new("int64_t *")
        self._check(self._library.encoder_bytes(encoder.data, size))
        return int(size[0])

    def encoder_forward(self, encoder: Structure, out: np.ndarray, activations: np.ndarray | None) -> None:
        """Write the last states of a batch (``Encoder``) to ``out``. ``activations`` is needed for a backward pass."""
        memory = declarations().NULL if activations is None else _address(activations, "void *", "activations")
        self._check(self._library.encoder_forward(encoder.data, _address(out, "void *", "out"), memory))

    def encoder_backward(self, encoder: Structure, grad: np.ndarray, activations: np.ndarray) -> None:
        """Gradients of the weights (``Encoder``) from the gradient of a batch's last states."""
        memory = _address(activations, "void *", "activations")
        self._check(self._library.encoder_backward(encoder.data, _address(grad, "void *", "grad"), memory))

    def low_rank_gradients(self, gradients: Structure) -> None:
        """Gradients of A and B of several linear layers (``LowRankGradients``)."""
        self._check(self._library.low_rank_gradients(gradients.data, gradients.count, thread_count()))

    def attention_forward(self, attention: Structure) -> None:
        """Attention (``Attention``)."""
        self._check(self._library.attention_forward(attention.data))

    def attention_backward(self, attention: Structure) -> None:
        """Gradients of query, key and value (``Attention``)."""
        self._check(self._library.attention_backward(attention.data))

    def head_forward(self, head: Structure) -> None:
        """Features and logits (``Head``)."""
        self._check(self._library.head_forward(head.data))

    def head_backward(self, head: Structure) -> None:
        """Gradients of states, pooler and classifier (``Head``)."""
        self._check(self._library.head_backward(head.data))

    def adamw(self, step: Structure) -> None:
        """One optimiser step (``AdamW``)."""
        self._check(self._library.adamw(step.data))

    def convert(self, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Values of an element type in another one; the same array if nothing changes and it is contiguous."""
        values = np.ascontiguousarray(values)
        if values.dtype == dtype:
            return values
        out = empty(values.shape, dtype)
        if dtype == BF16:
            status = self._library.narrow_values(
                _address(values, "float *", "values"), values.size, _address(out, "uint16_t *", "out")
            )
        else:
            status = self._library.widen_values(
                _address(values, "uint16_t *", "values"), values.size, _address(out, "float *", "out")
            )
        self._check(status)
        return out

    def dropout_factors(self, mask: Structure, index: int, first_token: int, out: np.ndarray) -> None:
        """Write the dropout factors (``Mask``) of a linear layer's input to ``out`` ``[t d]``; for tests."""
        (tokens, width), address = out.shape, _address(out, "float *", "out")
        self._check(self._library.dropout_factors(mask.data, index, first_token, tokens, width, address))

    def product(self, product: Structure) -> None:
        """A matrix product (``Product``)."""
        self._check(self._library.product(product.data))

    def fail_allocation_after(self, allocations: int) -> None:
        """Make one allocation fail after the given number of successful ones; below 0: none fails. For tests."""
        self._check(self._library.fail_allocation_after(allocations))

    def live_allocations(self) -> int:
        """Number of unreleased blocks without workspaces; 0 between two calls. For tests."""
        count = declarations().new("int64_t *")
        self._check(self._library.live_allocations(count))
        return int(count[0])

    def _check(self, status: int) -> None:
        if status == self._library.OUT_OF_MEMORY:
            raise MemoryError("the native backend ran out of memory; use a smaller batch or fewer runs per pack")


REFUSED = "the operating system refuses AMX"


class TilesRefused(NativeUnavailable):
    """The operating system refuses AMX, so another instruction set is used."""


@cache
def _open(path: Path, instructions: str, note: str) -> Kernels:
    """Load a library once per process.

    Raises:
        NativeUnavailable: the library uses tiles, and the operating system refuses them.
        OSError: the library cannot be loaded.
    """
    runtime = load_openmp()
    try:
        kernels = Kernels(path, instructions, note)
    except OSError as error:
        raise OSError(f"{error}{missing_runtime(error, runtime)}") from error
    if not kernels.allow_tiles():
        raise TilesRefused(REFUSED)
    return kernels


def _load(instructions: str, sources: Path, note: str) -> Kernels:
    """The kernels of the wheel, or else those of the cache or the compiler.

    Raises:
        NativeUnavailable: there are none; the message gives every reason.
    """
    reason, ready = "", prebuilt(instructions, sources)
    try:
        if ready is not None:
            return _open(ready, instructions, note)
    except OSError as error:
        reason = f"the prebuilt kernels cannot be loaded ({error}); "
    try:
        return _open(compiled(instructions, sources), instructions, note)
    except (TilesRefused, CompilerUnfinished):
        raise
    except NativeUnavailable as failure:
        raise NativeUnavailable(f"{reason}{failure}") from failure
    except OSError as error:
        raise NativeUnavailable(f"{reason}the compiled kernels cannot be loaded ({error})") from error


def load_kernels(instructions: str | None = None, sources: Path = SOURCES) -> Kernels:
    """The kernels for an instruction set: from the wheel, else from the cache, else compiled.

    The library and torch use the same OpenMP runtime and thread pool, whichever is loaded first (``openmp.py``).

    Args:
        instructions: one of :data:`loralet.backends.native.build.INSTRUCTION_SETS`; None: the value of
            ``LORALET_ISA``, else the best that this machine and its compiler support.
        sources: folder of the C files.

    Raises:
        NativeUnavailable: there are no kernels; the message gives the reason.
    """
    failures: list[NativeUnavailable] = []
    for name in wanted_instructions(instructions):
        note = REFUSED if any(isinstance(failure, TilesRefused) for failure in failures) else ""
        try:
            return _load(name, sources, note)
        except NativeUnavailable as failure:
            failures.append(failure)
            if isinstance(failure, CompilerUnfinished):
                break
    raise failures[0]
