"""Emulated VART and its device, and stand-ins for the board's other modules."""
