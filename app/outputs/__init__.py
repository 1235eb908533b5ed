"""Outputs for results: the terminal, records, annotated images and videos."""
