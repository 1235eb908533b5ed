"""`tutelage check`: whether a network runs on the DPU, what it costs and what to change."""
