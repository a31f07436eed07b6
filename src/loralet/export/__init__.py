"""Export trained runs for other programs."""
