"""Formats of data sets, one module for each."""
