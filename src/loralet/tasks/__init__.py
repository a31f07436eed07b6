"""Tasks: what the labels of a data set mean, and what makes a prediction good."""
