"""Compilation of a quantised .xmodel for a board or for the emulation."""
