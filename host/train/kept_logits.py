"""Logits of a frozen teacher, computed once if every epoch has the same images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutelage.host.train.config import Config
from tutelage.host.train.data.augmentation import Augmentation
from tutelage.host.train.data.data_set import DataSet
from tutelage.host.train.feeding import Feed
from tutelage.host.train.methods import Phase

MOST_BYTES = 256 << 20
"""Most bytes of logits to keep: in float32, 67 million (images times classes)."""


def can_keep(config: Config, plan: list[Phase], data: DataSet, processes: int) -> bool:
    """Return whether the logits of all training images can be kept, and keeping them saves work.

    Each process then computes the logits of all images once, instead of its share in each epoch.
    They cannot be kept with [features], which need the teacher's forward pass in each step.

    Parameters
    ----------
    plan : the phase of each epoch
    data : the training set
    processes : number of training processes
    """
    epochs = sum(phase.teacher == "frozen" for phase in plan)
    size = 4 * len(data) * len(data.classes)
    alike = config.augmentation == Augmentation() and not config.features.layers
    return alike and epochs > processes and size <= MOST_BYTES


class KeptLogits:
    """Logits of a frozen teacher for all training images.

    They are computed in the order of the images, so that a resumed run has the same.

    Parameters
    ----------
    feed : source of the images
    teach : returns the logits (N, classes) of a batch
    """

    def __init__(self, feed: Feed, teach: Callable[[Tensor], Tensor]) -> None:
        self._feed, self._teach = feed, teach
        self._logits: Tensor | None = None

    def forget(self) -> None:
        """Discard the logits, because the teacher has changed."""
        self._logits = None

    @torch.no_grad()
    def compute(self) -> None:
        """Compute the logits if there are none; no epoch may be reading from the feed."""
        if self._logits is not None:
            return
        kept: Tensor | None = None
        for batch in self._feed.in_order():
            logits = self._teach(batch.images).float()
            if kept is None:
                kept = logits.new_zeros(self._feed.count, logits.shape[1])
            kept[batch.rows.to(logits.device)] = logits
        self._logits = kept

    def of(self, rows: Tensor) -> Tensor:
        """Return the logits (N, classes) of images by their indices (N,) in the training set."""
        assert self._logits is not None, "compute() comes first"
        return self._logits[rows.to(self._logits.device)]
