"""Adapter folders: reading, writing, verification and model cards; import and export of PEFT adapters."""
