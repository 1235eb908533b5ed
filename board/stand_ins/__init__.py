"""Stand-ins for modules that board scripts import; `dpu/runtime/shim.py` installs them."""
