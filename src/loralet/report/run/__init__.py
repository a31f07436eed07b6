"""The page of a single run: what the classifier is, how accurate it is, its classes, rows to check, and its use."""
