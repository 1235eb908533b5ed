"""The pipeline that runs frames through the model, and the figures of a run."""
