"""How long a network takes on a board's DPU, and what it costs in energy."""
