"""Adapter methods, and the layout of k adapters stacked on one encoder.

Axes as in :mod:`loralet.models`.
"""
