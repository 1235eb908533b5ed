"""Labelled images in memory, and their way into the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tutelage.core.errors import TutelageError
from tutelage.core.images.input_form import FormError, InputForm

MEAN, SCALE = 128.0, 1 / 128
"""(v - 128) / 128, unless a data set says otherwise: at fix point 7 that is v - 128 in int8, so
that all 256 levels enter the DPU exactly, none is rounded or clipped."""

_COLOURS = {1: "grey", 3: "rgb"}  # by the number of channels


class DataError(TutelageError, ValueError):
    """A data set cannot be used; the text is one line that names the file."""


@dataclass(frozen=True)
class DataSet:
    """Labelled images.

    Attributes
    ----------
    images : uint8 (N, C, H, W); three channels are RGB
    labels : int64 (N,), each an index into `classes`
    classes : the classes' names
    form : how a picture becomes one of `images`, and that the network's input; when it is None
        pictures are not cropped, and the input is (v - 128) / 128
    files : where each image was read from; empty where it was not a file of its own
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    form: InputForm = None  # type: ignore[assignment]  # never None once it is made
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.form is None:
            object.__setattr__(self, "form", make_form(self.shape))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, count: int) -> DataSet:
        """The first `count` images, all when it is 0; views, nothing is copied."""
        if count < 0:
            raise ValueError(f"count is {count}; it must not be negative")
        return self.part(0, count or len(self))

    def part(self, start: int, stop: int) -> DataSet:
        """The images from `start` to `stop`, as views."""
        one = slice(start, stop)
        return replace(
            self, images=self.images[one], labels=self.labels[one], files=self.files[one]
        )

    def inputs(self, chosen: slice | Tensor = slice(None)) -> Tensor:
        """The network's inputs (N, C, H, W), float32 and channels_last, of chosen images."""
        return normalise(self.images[chosen], self.form)


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
