"""The adapter methods by name; imported without torch."""

from __future__ import annotations

from collections.abc import Mapping

from loralet.adapters.base import AdapterMethod
from loralet.adapters.dora import Dora
from loralet.adapters.lora import Lora

METHODS: Mapping[str, AdapterMethod] = {method.name: method for method in (Lora(), Dora())}
"""Every value of ``--method``."""
