"""Whether a network runs on the DPU, what it will cost and what to change: `tutelage check`."""
