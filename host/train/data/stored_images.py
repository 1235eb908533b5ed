"""Images that are read from their files on access.

Decoding, cropping and resizing are those of the application (`tutelage.core.images`), so that a
picture gives the same pixels whether it is streamed, in memory or on the board.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.errors import TutelageError
from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import InputForm

Chosen = slice | NDArray[np.int64]

Window = Callable[[int, int], tuple[int, int, int, int]]
"""From a picture's height and width to the part to crop: top, left, height, width, in pixels."""


class DataError(TutelageError, ValueError):
    """A data set cannot be used; the text is one line that names the file."""


class PictureError(DataError):
    """One picture cannot be read; others may be readable."""


class Pictures(Protocol):
    """Pictures in files, by index. They can be sent to other processes."""

    @property
    def files(self) -> Sequence[Path]:
        """File of each picture; empty if they are not single files."""

    @property
    def containers(self) -> NDArray[np.int64] | None:
        """Number of the shard that each picture is in, (N,); None without shards."""

    def __len__(self) -> int: ...

    def take(self, chosen: Chosen) -> Pictures:
        """Return some of the pictures."""

    def read(self, number: int) -> NDArray[np.uint8]:
        """Read one picture, BGR (H, W, 3), upright; raise PictureError if that fails."""

    def name(self, number: int) -> str:
        """Return the name of a picture for messages."""


class StoredImages:
    """Images of one size, read from files; indexing returns them as a tensor.

    Parameters
    ----------
    pictures : the pictures to make them from
    form : size, crop and colours of the images
    resized : whether pictures of another size are resized; else they are refused
    """

    def __init__(self, pictures: Pictures, form: InputForm, resized: bool = True) -> None:
        self.pictures, self.form, self._resized = pictures, form, resized

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self), self.form.channels, self.form.height, self.form.width

    def take(self, chosen: Chosen) -> StoredImages:
        """Return some of the images, without reading them."""
        return StoredImages(self.pictures.take(chosen), self.form, self._resized)

    def __getitem__(self, chosen: slice | Sequence[int] | Tensor) -> Tensor:
        """Read images, uint8 (N, C, H, W), channels_last.

        Raises
        ------
        DataError
            One of them cannot be read, or has another size and pictures are not resized.
        """
        numbers = np.arange(len(self))[chosen.numpy() if isinstance(chosen, Tensor) else chosen]
        pixels = np.empty((len(numbers), *self.shape[2:], self.form.channels), np.uint8)
        for target, number in zip(pixels, numbers.tolist(), strict=True):
            target[...] = self.read(number)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def read(self, number: int, window: Window | None = None) -> NDArray[np.uint8]:
        """Read one image, uint8 (H, W, C), in the form's colours.

        Parameters
        ----------
        window : part of the picture to resize to the image, instead of the form's crop

        Raises
        ------
        PictureError
            The picture cannot be read.
        DataError
            The picture has another size, and pictures are not resized.
        """
        picture = self.pictures.read(number)
        size = self.form.height, self.form.width
        if not self._resized and picture.shape[:2] != size:
            found = f"{picture.shape[0]}x{picture.shape[1]}"
            raise DataError(
                f"{self.pictures.name(number)}: is {found}, the first picture is "
                f"{size[0]}x{size[1]}: give size, to which all are resized"
            )
        return fit_part(picture, self.form, window)


def fit_part(
    picture: NDArray[np.uint8], form: InputForm, window: Window | None = None
) -> NDArray[np.uint8]:
    """Return a picture, uint8 BGR (H, W, 3), as an image of the form's size and colours.

    Parameters
    ----------
    window : part of the picture to resize to the image, instead of the form's crop
    """
    if window is not None:
        top, left, height, width = window(*picture.shape[:2])
        picture = picture[top : top + height, left : left + width]
        form = InputForm(form.width, form.height, form.colour)
    # A new fitter has a new buffer, which the caller may keep; an image that needs no resizing and
    # no colour conversion is the picture itself.
    return np.asarray(ImageFitter(form)(picture), np.uint8)
