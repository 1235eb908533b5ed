"""Weights of the classes in the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.host.train.config import ConfigError, Training
from tutelage.host.train.data import DataSet


def class_weights(training: Training, data: DataSet) -> Tensor | None:
    """Return the weights of the classes, float32 (classes,); None if all have the same weight.

    Images without labels, on which nothing is trained, have none either.

    They are scaled so that their mean over the training images is 1, which leaves the size of the
    gradient, and so the best learning rate, about the same.

    Raises
    ------
    ConfigError
        The configuration does not give one weight for each class.
    """
    wanted, count = training.class_weights, len(data.classes)
    if not wanted or not data.is_labelled:
        return None
    images = torch.bincount(data.labels, minlength=count).double()
    if isinstance(wanted, str):  # balanced
        weights = 1 / images.clamp(min=1)
    elif len(wanted) != count:
        raise ConfigError(
            f"[training] class_weights: {len(wanted)} weights for {count} classes: give one for "
            "each class"
        )
    else:
        weights = torch.tensor(wanted, dtype=torch.float64)
    return (weights * images.sum() / (weights * images).sum()).float()
