"""Images that stay in their files until they are asked for.

Decoding, cropping and resizing are the application's (`tutelage.core.images`), so that a picture
has the same pixels here, in memory and on the board.
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
"""From a picture's height and width to the part that is taken: top, left, height, width."""


class DataError(TutelageError, ValueError):
    """A data set cannot be used; the text is one line that names the file."""


class PictureError(DataError):
    """One picture cannot be read; others may."""


class Pictures(Protocol):
    """Pictures in files, by their number. They can be sent to other processes."""

    @property
    def files(self) -> Sequence[Path]:
        """The file of each; empty where they are not files of their own."""

    @property
    def containers(self) -> NDArray[np.int64] | None:
        """The number of the file that each is in, where a file has many; else None."""

    def __len__(self) -> int: ...

    def take(self, chosen: Chosen) -> Pictures:
        """Return a part of them."""

    def read(self, number: int) -> NDArray[np.uint8]:
        """Return one, BGR (H, W, 3), upright; raises PictureError."""

    def name(self, number: int) -> str:
        """Return what names it for a reader."""


class StoredImages:
    """Images of one size, read from files; an index gives them as a tensor.

    Parameters
    ----------
    pictures : where they are
    form : the size, and the crop before it is resized to that, and the colours
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
        """Return a part of the images, of which nothing is read."""
        return StoredImages(self.pictures.take(chosen), self.form, self._resized)

    def __getitem__(self, chosen: slice | Sequence[int] | Tensor) -> Tensor:
        """Read images, uint8 (N, C, H, W) and channels_last.

        Raises
        ------
        DataError
            One of them cannot be read, or is of another size.
        """
        numbers = np.arange(len(self))[chosen.numpy() if isinstance(chosen, Tensor) else chosen]
        pixels = np.empty((len(numbers), *self.shape[2:], self.form.channels), np.uint8)
        for target, number in zip(pixels, numbers.tolist(), strict=True):
            target[...] = self.read(number)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def read(self, number: int, window: Window | None = None) -> NDArray[np.uint8]:
        """Read one image, (H, W, C) in the form's colours.

        Parameters
        ----------
        window : the part of the picture that is resized to the image, instead of the form's crop

        Raises
        ------
        PictureError
            It cannot be read.
        DataError
            It has another size, and pictures are not resized.
        """
        picture = self.pictures.read(number)
        size = self.form.height, self.form.width
        if not self._resized and picture.shape[:2] != size:
            found = f"{picture.shape[0]}x{picture.shape[1]}"
            raise DataError(
                f"{self.pictures.name(number)}: is {found} and the first picture is "
                f"{size[0]}x{size[1]}; give size to make them equal"
            )
        return fit_part(picture, self.form, window)


def fit_part(
    picture: NDArray[np.uint8], form: InputForm, window: Window | None = None
) -> NDArray[np.uint8]:
    """Return a picture, BGR (H, W, 3), as an image of the form's size and colours.

    Parameters
    ----------
    window : the part of the picture that is resized to the image, instead of the form's crop
    """
    if window is not None:
        top, left, height, width = window(*picture.shape[:2])
        picture = picture[top : top + height, left : left + width]
        form = InputForm(form.width, form.height, form.colour)
    # The fitter's buffer is a new one each time and so the caller's; an image that needs no
    # resizing and no change of colours is the picture itself.
    return np.asarray(ImageFitter(form)(picture), np.uint8)
