"""Progress of long work, on a terminal or as events."""
