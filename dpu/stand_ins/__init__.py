"""Modules under the names that scripts for the board import; `dpu/shim.py` puts them on the path."""
