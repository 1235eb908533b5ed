"""Image files, their decoding and their conversion to a network's input."""
