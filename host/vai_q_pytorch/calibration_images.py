"""A bounded sample of the images that a script passes through a network to calibrate it."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.host.export.calibration_images import CALIBRATION_IMAGES

MOST_BYTES = 1 << 30
"""Default limit on the memory of the images that are kept, bytes."""


class KeptImages:
    """A reproducible random sample of all images seen, bounded in number and in bytes.

    Each image has the same probability of being kept (reservoir sampling, Vitter 1985), so that a
    data set sorted by class still gives images of all classes.

    Parameters
    ----------
    most : largest number of images to keep; at least one is kept
    most_bytes : largest total size of the images kept
    """

    def __init__(self, most: int = CALIBRATION_IMAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: list[tuple[Tensor, ...]] = []
        self._seen = 0
        self._generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, inputs: tuple[Tensor, ...]) -> None:
        """Offer a batch: one tensor (N, ...) for each input of the network."""
        for row in zip(*(x.detach() for x in inputs), strict=True):
            place = self._place(sum(x.numel() * x.element_size() for x in row))
            self._seen += 1
            if place is None:
                continue
            kept = tuple(x.cpu().clone() for x in row)
            if place == len(self._kept):
                self._kept.append(kept)
            else:
                self._kept[place] = kept

    def _place(self, size: int) -> int | None:
        """Return the index at which to store the next image of `size` bytes; None to drop it."""
        room = max(1, min(self._most, self._most_bytes // max(size, 1)))
        if len(self._kept) < room:
            return len(self._kept)
        place = int(torch.randint(self._seen + 1, (), generator=self._generator))
        return place if place < room else None

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the images kept, one tensor (N, ...) for each input of the network."""
        return tuple(torch.stack(column) for column in zip(*self._kept, strict=True))
