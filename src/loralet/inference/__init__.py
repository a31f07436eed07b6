"""Inference with trained runs: ensemble, its engines, and the tensors for exports."""
