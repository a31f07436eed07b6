"""Run folders and their results; the only package that reads and writes this schema."""
