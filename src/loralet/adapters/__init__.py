"""Adapter methods: what is trained on a linear layer, and k adapters stacked over one encoder.

Axes as in :mod:`loralet.models`.
"""
