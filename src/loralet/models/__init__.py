"""Encoders: the layer table, the forward pass, heads, and one module per model family.

Axes: ``k`` adapters, ``b`` rows, ``t`` tokens, ``s`` tokens read by the head, ``n`` concatenated tokens of all rows,
``d`` input features, ``o`` output features, ``r`` rank, ``c`` outputs (classes). A leading axis of 1 means that all
adapters share the tensor.
"""
