"""A user's network as a graph of few forms: captured by torch.fx, then normalised by passes."""
