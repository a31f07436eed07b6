"""The report of a run folder: analysis, text, figures, pages; and other tables of what was trained."""
