"""Figures of a report: each draws numbers of the analysis as one panel or more."""
