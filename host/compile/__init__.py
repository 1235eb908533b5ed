"""From a quantised .xmodel to one that a board or the emulation runs."""
