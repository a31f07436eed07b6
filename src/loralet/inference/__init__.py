"""Trained runs at work: predictor, ensemble, evaluation."""
