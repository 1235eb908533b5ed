"""Images: which files count, how they are decoded, and the one way to the network's input."""
