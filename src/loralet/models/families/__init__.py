"""The supported model families, one module each. Every module of this package defines ``FAMILY``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from loralet.models.family import Family

FAMILIES: dict[str, Family] = {}
"""Families by model type, in alphabetical order of the modules."""
for _module in iter_modules(__path__, f"{__name__}."):
    _family: Family = import_module(_module.name).FAMILY
    FAMILIES[_family.model_type] = _family
