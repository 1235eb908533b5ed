"""Run a graph: the program of its ops, the reference engine and the fast one."""
