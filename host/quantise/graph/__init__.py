"""A user's network as a graph: captured by torch.fx, and normalised to few operations by passes."""
