"""Work that several machines share through a storage of Optuna."""
