"""The compiler for boards: from the ops of a DPU subgraph to the DPU's own instructions."""
