"""Tasks: the meaning of labels, the loss, and the metrics."""
