"""The report of a run folder (analysis, text, figures, pages), and tables of runs, models and predictions."""
