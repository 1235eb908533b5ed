"""Stand-ins for the modules that board scripts import, used by `dpu/runtime/shim.py`."""
