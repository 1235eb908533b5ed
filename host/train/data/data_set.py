"""Labelled images, and their way into the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.core.images.input_form import FormError, InputForm
from tutelage.host.train.data.path_table import PathTable
from tutelage.host.train.data.stored_images import Chosen, DataError, StoredImages

__all__ = ["DataError", "DataSet", "make_form", "normalise"]

MEAN, SCALE = 128.0, 1 / 128
"""(v - 128) / 128, unless a data set says otherwise: at fix point 7 that is v - 128 in int8, so
that all 256 levels enter the DPU exactly, none is rounded or clipped."""

_COLOURS = {1: "grey", 3: "rgb"}  # by the number of channels


@dataclass(frozen=True)
class DataSet:
    """Labelled images.

    Attributes
    ----------
    store : uint8 (N, C, H, W) in memory, or images that are read when they are asked for; three
        channels are RGB
    labels : int64 (N,), each an index into `classes`; all of them -1 where there are none
    classes : the classes' names; without labels they may be unknown
    form : how a picture becomes one of the images, and that the network's input; when it is None
        pictures are not cropped, and the input is (v - 128) / 128
    files : where each image was read from; empty where it was not a file of its own
    """

    store: Tensor | StoredImages
    labels: Tensor
    classes: tuple[str, ...]
    form: InputForm = None  # type: ignore[assignment]  # never None once it is made
    files: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.form is None:
            object.__setattr__(self, "form", make_form(self.shape))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_labelled(self) -> bool:
        """Whether there are labels."""
        return bool(self.labels[0] >= 0)

    @property
    def is_streamed(self) -> bool:
        """Whether the images stay in their files."""
        return isinstance(self.store, StoredImages)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.store.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """All images, uint8 (N, C, H, W); of a set that is streamed, all of them are read."""
        return self.pixels()

    def pixels(self, chosen: slice | Sequence[int] | Tensor = slice(None)) -> Tensor:
        """The pixels of chosen images, uint8 (N, C, H, W).

        Raises
        ------
        DataError
            One of them cannot be read; in a set that is in memory all can.
        """
        return self.store[chosen]

    def take(self, count: int) -> DataSet:
        """Up to `count` images, all when it is 0: the first, or where the images are sorted by
        class, as a folder's are, evenly spread."""
        if count < 0:
            raise ValueError(f"count is {count}; it must not be negative")
        if not 0 < count < len(self):
            return self
        if bool((self.labels.diff() >= 0).all()):
            return self.subset(torch.arange(count) * len(self) // count)
        return self.part(0, count)

    def part(self, start: int, stop: int) -> DataSet:
        """The images from `start` to `stop`; nothing is copied or read."""
        return self._chosen(slice(start, stop))

    def subset(self, rows: Tensor) -> DataSet:
        """The images of some rows, int64; of a streamed set nothing is read."""
        return self._chosen(rows.numpy())

    def _chosen(self, rows: Chosen) -> DataSet:
        store = self.store
        if isinstance(store, StoredImages):
            store = store.take(rows)
        else:
            store = store[rows]
        if isinstance(rows, slice):
            files = self.files[rows]
        elif isinstance(self.files, PathTable):
            files = self.files.take(rows)
        else:
            files = tuple(self.files[row] for row in rows) if self.files else ()
        return replace(self, store=store, labels=self.labels[rows], files=files)

    def inputs(self, chosen: slice | Tensor = slice(None)) -> Tensor:
        """The network's inputs (N, C, H, W), float32 and channels_last, of chosen images.

        Raises
        ------
        DataError
            As `pixels`.
        """
        return normalise(self.pixels(chosen), self.form)


def make_form(
    shape: tuple[int, int, int],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    crop: str = "none",
) -> InputForm:
    """The form of images (C, H, W).

    Parameters
    ----------
    mean, std : as torchvision has them, of pixels in 0..1; for each channel or one for all. The
        input is (v / 255 - mean) / std; without both it is (v - 128) / 128
    crop : "none" or "center"

    Raises
    ------
    FormError
        There are neither 1 nor C of them.
    """
    channels, height, width = shape
    if bool(mean) != bool(std):
        raise FormError("mean and std go together")
    means = [255 * value for value in mean] or [MEAN]
    scales = [1 / (255 * value) for value in std] or [SCALE]
    return InputForm(width, height, _COLOURS[channels], tuple(means), tuple(scales), crop)


def normalise(images: Tensor, form: InputForm) -> Tensor:
    """Return (v - mean) * scale, float32 and channels_last, of uint8 (N, C, H, W).

    Each value is that of `tutelage.core.images.input_form.float_table`, to the bit.
    """
    # Written into a tensor laid out beforehand: .contiguous() leaves one channel in NCHW strides.
    out = torch.empty(
        images.shape,
        dtype=torch.float32,
        device=images.device,
        memory_format=torch.channels_last,
    )
    mean, scale = (
        torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)
        for values in (form.mean, form.scale)
    )
    return out.copy_(images).sub_(mean).mul_(scale)
