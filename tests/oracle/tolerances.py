"""How close is equal."""

FP32 = 1e-5
"""Two correct fp32 computations in another order, on states of size about 1."""

FP32_TRAINED = 1e-5
"""Weights after tens of AdamW steps in fp32 by two orders of summation, at learning rates of about 1e-3."""

EXACT = 0.0
"""The same numbers by the same operations."""
