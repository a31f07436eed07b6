"""Run folders and their results: the only reader and writer of that schema."""
