"""The compiler for boards: from the ops of a DPU subgraph to DPU instructions."""
