"""Trained runs at work."""
