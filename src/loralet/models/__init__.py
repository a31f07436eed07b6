"""Encoders: the layer table, one forward pass that reads it, heads, and one module per model family.

Axes: ``k`` adapters, ``b`` rows, ``t`` tokens, ``s`` tokens that are read, ``n`` tokens of all rows one after another,
``d`` features in, ``o`` features out, ``r`` rank, ``c`` outputs (classes). A leading axis of 1 stands for "the same for
every adapter".
"""
