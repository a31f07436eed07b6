"""The adapter methods by name."""

from __future__ import annotations

from loralet.adapters.base import AdapterMethod
from loralet.adapters.dora import Dora
from loralet.adapters.lora import Lora

METHODS: dict[str, AdapterMethod] = {method.name: method for method in (Lora(), Dora())}
"""Every value of ``--method``."""
