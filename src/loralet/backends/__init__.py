"""Compute backends: where packs are computed."""
