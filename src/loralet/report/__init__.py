"""The report of a run folder: numbers, text, figures, pages."""
