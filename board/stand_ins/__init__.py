"""Modules with the names that scripts for the board import; `dpu/shim.py` adds them to the path."""
