"""Power of a board's rails or of a PC, sampled while something else runs."""
