"""Modules named as those that scripts for the board import; `dpu/runtime/shim.py` uses them."""
