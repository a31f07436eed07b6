"""Encoders: the layer table, one forward pass that reads it, heads, and one module per model family."""
