"""Inference with trained runs: predictor, ensemble, evaluation."""
