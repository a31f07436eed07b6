"""Task-specific sections of a report: one module per task, listed in the registry."""
