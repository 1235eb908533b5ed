"""Modules with names of AMD's tools for the workstation; `tutelage shim` puts them on the path."""
