"""The way of a frame through the model, and the figures of a run."""
