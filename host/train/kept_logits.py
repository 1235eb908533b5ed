"""The logits of a teacher that is frozen, computed once where the same images come every epoch."""

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
"""More is not kept: float32 logits of 67 million images and classes."""


def can_keep(config: Config, plan: list[Phase], data: DataSet, processes: int) -> bool:
    """Return whether keeping the logits of all training images saves work.

    Each process computes those of all images once, instead of its share in each epoch. Features
    are compared of the same pass, so that nothing can be kept then.
    """
    epochs = sum(phase.teacher == "frozen" for phase in plan)
    size = 4 * len(data) * len(data.classes)
    alike = config.augmentation == Augmentation() and not config.features.layers
    return alike and epochs > processes and size <= MOST_BYTES


class KeptLogits:
    """The logits of all training images by a frozen teacher.

    They are computed in the order of the images, so that a run that is resumed has the same.

    Parameters
    ----------
    feed : gives the images
    teach : returns the logits (N, classes) of a batch
    """

    def __init__(self, feed: Feed, teach: Callable[[Tensor], Tensor]) -> None:
        self._feed, self._teach = feed, teach
        self._logits: Tensor | None = None

    def forget(self) -> None:
        """Compute them again when they are next asked for: the teacher has learnt."""
        self._logits = None

    def of(self, rows: Tensor) -> Tensor:
        """Return the logits (N, classes) of images by their places (N,) in the training set."""
        if self._logits is None:
            self._logits = self._computed()
        return self._logits[rows.to(self._logits.device)]

    @torch.no_grad()
    def _computed(self) -> Tensor:
        found: Tensor | None = None
        for batch in self._feed.in_order():
            logits = self._teach(batch.images).float()
            if found is None:
                found = logits.new_zeros(self._feed.count, logits.shape[1])
            found[batch.rows.to(found.device)] = logits
        assert found is not None
        return found
