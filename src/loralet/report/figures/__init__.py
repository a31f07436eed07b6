"""Figures of a report. Each draws values of the analysis as one or more panels."""
