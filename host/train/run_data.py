"""Data sets of a run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from tutelage.host.train.config import Config
from tutelage.host.train.data import SPLITS, DataError, DataSet, load
from tutelage.host.train.data.loading import load_held_out
from tutelage.host.train.data.splits import is_held_out
from tutelage.host.train.labelling import labelled


class RunData(NamedTuple):
    """Data sets of a run: to train on, to test on at its end, and to evaluate on until then."""

    train: DataSet
    test: DataSet
    validation: DataSet | None = None


def load_data(config: Config) -> tuple[DataSet, DataSet]:
    """Return all training images, including those for validation, and the test set.

    Raises
    ------
    DataError
        One of them cannot be used.
    """
    train, test = (load_split(config, split) for split in SPLITS)
    return train.take(config.data.limit), test


def load_split(config: Config, split: str) -> DataSet:
    """Return all images of the split "train" or "test".

    Images without labels get the predictions of the student's float network.

    Raises
    ------
    DataError
        The data set cannot be used.
    ConfigError, NetworkError, CheckpointError
        See `tutelage.host.train.labelling.labelled`.
    """
    data = config.data
    path = Path(data.path).expanduser() if data.path else None
    whole_pictures = split == "train" and config.augmentation.random_resized_crop > 0
    memory = 0 if whole_pictures else data.in_memory_mib << 20
    found = load(data.kind, path, split, data.size, data.mean, data.std, memory, data.colour)
    return labelled(config, found, is_learnt=split == "train")


def run_data(config: Config, loaded: tuple[DataSet, DataSet] | None = None) -> RunData:
    """Return the data sets of a run.

    Parameters
    ----------
    loaded : the result of `load_data`, if it has been called already

    Raises
    ------
    DataError
        One of them cannot be used, or there are too few images, or no labels, to hold some out.
    """
    train, test = loaded or load_data(config)
    held_out = config.data.validation
    if not held_out:
        return RunData(train, test)
    if isinstance(held_out, str):
        path, memory = Path(held_out).expanduser(), config.data.in_memory_mib << 20
        return RunData(train, test, load_held_out(config.data.kind, path, train, memory))
    if not train.is_labelled:
        raise DataError("[data] validation needs labels, or a method that trains: remove it")
    chosen = is_held_out(train.labels.numpy(), held_out, config.validation_seed)
    held = torch.from_numpy(chosen)
    if not held.any():
        raise DataError(
            f"[data] validation = {held_out:g} needs a class with two images; no class has two"
        )
    rows = torch.arange(len(train))
    return RunData(train.subset(rows[~held]), test, train.subset(rows[held]))
