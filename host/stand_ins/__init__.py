"""Emulated modules of AMD's workstation tools; `tutelage shim` adds this folder to the path."""
