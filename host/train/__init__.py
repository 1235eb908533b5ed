"""Training: data, configuration, methods, checkpoints and the study."""
