"""Tensors in, tensors out: the encoder, the stacked adapters, the heads, the optimiser. No files, no tokenizer, no configs.

Axes: ``k`` adapters, ``b`` rows, ``t`` tokens, ``s`` tokens that are read on, ``d`` features in, ``o`` features out, ``r`` rank, ``c`` classes,
``n`` trained numbers of one adapter. A leading axis of 1 stands for "the same for every adapter".
"""
