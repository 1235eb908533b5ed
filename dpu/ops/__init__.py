"""The ops of a graph: reference functions, output shapes and limits."""
