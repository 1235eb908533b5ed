"""Labelled images and their conversion to the network's input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.core.images.input_form import FormError, InputForm
from tutelage.host.train.data.path_table import PathTable
from tutelage.host.train.data.stored_images import Chosen, DataError, StoredImages

__all__ = ["DataError", "DataSet", "make_form", "normalise"]

MEAN, SCALE = 128.0, 1 / 128
"""The default input is (v - 128) / 128: at fix point 7 that is v - 128 in int8, so that all 256
levels reach the DPU exactly, without rounding or clipping."""

LEAST_STD = 1e-3
"""Smallest standard deviation; 1/255, which makes the input the pixel value, is allowed."""

_COLOURS = {1: "grey", 3: "rgb"}  # by the number of channels


@dataclass(frozen=True)
class DataSet:
    """Labelled images.

    Attributes
    ----------
    store : uint8 (N, C, H, W) in memory, or images that are read from disk on access; three
        channels are RGB
    labels : int64 (N,), each an index into `classes`; all -1 in a set without labels
    classes : names of the classes; they may be empty in a set without labels
    form : how a picture becomes an image, and an image the network's input. With None pictures are
        not cropped, and the input is (v - 128) / 128
    files : file of each image; empty if the images are not single files
    """

    store: Tensor | StoredImages
    labels: Tensor
    classes: tuple[str, ...]
    form: InputForm = None  # type: ignore[assignment]  # never None after __post_init__
    files: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if self.form is None:
            object.__setattr__(self, "form", make_form(self.shape))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_labelled(self) -> bool:
        """Whether the images have labels."""
        return bool(self.labels[0] >= 0)

    @property
    def is_streamed(self) -> bool:
        """Whether the images are read from their files on access."""
        return isinstance(self.store, StoredImages)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.store.shape[1:]
        return channels, height, width

    @property
    def images(self) -> Tensor:
        """All images, uint8 (N, C, H, W); a streamed set reads all of them from disk."""
        return self.pixels()

    def pixels(self, chosen: slice | Sequence[int] | Tensor = slice(None)) -> Tensor:
        """Return the pixels of chosen images, uint8 (N, C, H, W).

        Raises
        ------
        DataError
            One of them cannot be read (only in a streamed set).
        """
        return self.store[chosen]

    def take(self, count: int) -> DataSet:
        """Return up to `count` images; 0 for all of them.

        They are the first ones, or, if the images are sorted by class as in a folder, evenly spaced
        ones.

        Raises
        ------
        ValueError
            `count` is negative.
        """
        if count < 0:
            raise ValueError(f"count is {count}; it must not be negative")
        if not 0 < count < len(self):
            return self
        if bool((self.labels.diff() >= 0).all()):
            return self.subset(torch.arange(count) * len(self) // count)
        return self.part(0, count)

    def part(self, start: int, stop: int) -> DataSet:
        """Return the images from `start` to `stop`, without copying or reading them."""
        return self._chosen(slice(start, stop))

    def subset(self, rows: Tensor) -> DataSet:
        """Return the images of some rows, int64 (N,); those of a streamed set are not read."""
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
        """Return the network's inputs (N, C, H, W), float32, channels_last, of chosen images.

        Raises
        ------
        DataError
            As for `pixels`.
        """
        return normalise(self.pixels(chosen), self.form)


def make_form(
    shape: tuple[int, int, int],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    crop: str = "none",
) -> InputForm:
    """Return the form of images (C, H, W).

    Parameters
    ----------
    mean, std : as in torchvision, for pixels in 0..1; one value for each channel or one for all.
        The input is (v / 255 - mean) / std; without both it is (v - 128) / 128
    crop : "none" or "center"

    Raises
    ------
    FormError
        There are neither 1 nor C values, or a value is not possible for pixels in 0..1.
    """
    channels, height, width = shape
    check_normalisation(mean, std)
    means = [255 * value for value in mean] or [MEAN]
    scales = [1 / (255 * value) for value in std] or [SCALE]
    return InputForm(width, height, _COLOURS[channels], tuple(means), tuple(scales), crop)


def channel_values(given: float | Iterable[float]) -> tuple[float, ...]:
    """Return a mean or standard deviation as a tuple; a number gives a tuple of one."""
    if isinstance(given, int | float):
        return (float(given),)
    return tuple(float(value) for value in given)


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Check the mean and standard deviation of each channel, for pixels in 0..1.

    Raises
    ------
    FormError
        One is given without the other, or a value is not possible for pixels in 0..1.
    """
    if bool(mean) != bool(std):
        raise FormError("mean and std go together")
    for name, values in (("mean", mean), ("std", std)):
        smallest = LEAST_STD if name == "std" else 0
        for value in values:
            if not smallest <= value <= 1:
                raise FormError(
                    f"{name} is {value:g}; it must be {smallest:g} to 1, since pixels are 0 to 1 "
                    "here: divide values for pixels 0 to 255 by 255"
                )


def normalise(images: Tensor, form: InputForm) -> Tensor:
    """Return (v - mean) * scale, float32, channels_last, of uint8 images (N, C, H, W).

    Each value equals that of `tutelage.core.images.input_form.float_table`, bit for bit.
    """
    # Allocated in this layout first: .contiguous() leaves images of one channel in NCHW strides.
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
