"""The part of a report that depends on the task: one module per task, found through the registry."""
