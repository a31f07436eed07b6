"""Grids of runs, their baselines and their statistics."""
