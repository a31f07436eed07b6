"""Estimates of the memory of a pack on the native backend, for packages that may not import it."""

from loralet.backends.native.memory import Footprint

__all__ = ["Footprint"]
