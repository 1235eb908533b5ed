"""Work that several machines share through an Optuna storage."""
