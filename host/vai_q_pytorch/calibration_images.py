"""The images that pass through a network while a script calibrates it."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.host.export.calibration_images import CALIBRATION_IMAGES

MOST_BYTES = 1 << 30


class KeptImages:
    """A sample of all images that were seen, bounded in number and bytes, the same each time.

    Each image that passes has the same chance to be in it (reservoir sampling, Vitter 1985), so
    that a data set that is sorted by class gives images of all classes.

    Parameters
    ----------
    most : images
    most_bytes : of all of them
    """

    def __init__(self, most: int = CALIBRATION_IMAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: list[tuple[Tensor, ...]] = []
        self._seen = 0
        self._generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, inputs: tuple[Tensor, ...]) -> None:
        """Take a batch (N, ...) of each input."""
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
        """Where the next image goes; None where it is left out."""
        room = max(1, min(self._most, self._most_bytes // max(size, 1)))
        if len(self._kept) < room:
            return len(self._kept)
        place = int(torch.randint(self._seen + 1, (), generator=self._generator))
        return place if place < room else None

    def tensors(self) -> tuple[Tensor, ...]:
        """Return what is kept: (N, ...) of each input."""
        return tuple(torch.stack(column) for column in zip(*self._kept, strict=True))
