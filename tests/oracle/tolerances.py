"""Tolerances of the comparisons."""

FP32 = 1e-5
"""Two correct fp32 computations in different order, on states of size about 1."""

FP32_TRAINED = 1e-5
"""Weights after tens of fp32 AdamW steps with two summation orders, at learning rates of about 1e-3."""

EXACT = 0.0
"""The same values from the same operations."""
