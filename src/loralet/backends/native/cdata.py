"""Types of what cffi returns, as far as the bindings use it. cffi itself has no types."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class CData(Protocol):
    """A C value, array or pointer."""

    def __getitem__(self, index: int) -> CData: ...

    def __setitem__(self, index: int, value: CData) -> None: ...

    def __add__(self, items: int) -> CData: ...

    def __int__(self) -> int: ...


@runtime_checkable
class CType(Protocol):
    """A C type; ``fields`` are those of a structure, ``item`` is the element of an array or pointer."""

    kind: str
    cname: str

    @property
    def item(self) -> CType: ...

    @property
    def fields(self) -> list[tuple[str, CField]]: ...


@runtime_checkable
class CField(Protocol):
    """A field of a structure."""

    type: CType
    offset: int


@runtime_checkable
class Library(Protocol):
    """The functions of ``csrc/api.h``. Each returns a status."""

    OUT_OF_MEMORY: int

    def pack_weights(self, packings: CData, count: int, threads: int, /) -> int: ...

    def encoder_bytes(self, encoder: CData, size: CData, /) -> int: ...

    def encoder_forward(self, encoder: CData, out: CData, activations: CData, /) -> int: ...

    def encoder_backward(self, encoder: CData, grad_out: CData, activations: CData, /) -> int: ...

    def low_rank_gradients(self, gradients: CData, count: int, threads: int, /) -> int: ...

    def attention_forward(self, attention: CData, /) -> int: ...

    def attention_backward(self, attention: CData, /) -> int: ...

    def head_forward(self, head: CData, /) -> int: ...

    def head_backward(self, head: CData, /) -> int: ...

    def adamw(self, step: CData, /) -> int: ...

    def narrow_values(self, values: CData, count: int, out: CData, /) -> int: ...

    def widen_values(self, values: CData, count: int, out: CData, /) -> int: ...

    def allow_tiles(self, allowed: CData, /) -> int: ...

    def product(self, product: CData, /) -> int: ...

    def dropout_factors(self, mask: CData, index: int, first: int, tokens: int, width: int, out: CData, /) -> int: ...

    def fail_allocation_after(self, allocations: int, /) -> int: ...

    def live_allocations(self, count: CData, /) -> int: ...


@runtime_checkable
class Declarations(Protocol):
    """cffi's FFI object."""

    NULL: CData

    def new(self, kind: str, count: int = ..., /) -> CData: ...

    def cast(self, kind: str, address: int, /) -> CData: ...

    def dlopen(self, path: str, /) -> Library: ...

    def sizeof(self, data: CData | str, /) -> int: ...

    def memmove(self, to: CData, source: CData, size: int, /) -> None: ...

    def typeof(self, kind: str, /) -> CType: ...

    def unpack(self, data: CData, count: int, /) -> list[float]: ...

    def list_types(self) -> tuple[list[str], list[str], list[str]]: ...
