"""Progress of long-running commands, on a terminal or as events."""
