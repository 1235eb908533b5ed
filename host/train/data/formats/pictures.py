"""Data sets made of picture files: in memory if they fit, else streamed."""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.images.image_files import broken_line
from tutelage.core.images.input_form import InputForm
from tutelage.core.text import shown
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import Wanted
from tutelage.host.train.data.stored_images import PictureError, Pictures, StoredImages

_LOG = logging.getLogger(__name__)


def data_set_of(
    pictures: Pictures,
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    wanted: Wanted,
    crop: str,
) -> DataSet:
    """Return a data set of pictures, read into memory if they fit.

    Parameters
    ----------
    labels : int64 (N,), indices into `classes`
    wanted : size, colour and limit of memory
    crop : how pictures are cropped before they are resized

    Raises
    ------
    DataError
        A picture has another size than the first and `wanted` has none, or no picture of a class,
        or none of the first hundred, can be read. Other broken ones are left out with a warning.
    """
    resized = wanted.size is not None
    height, width = wanted.size or _first_size(pictures)
    form = InputForm(width, height, wanted.colour, crop=crop if resized else "none")
    images = StoredImages(pictures, form, resized)
    if math.prod(images.shape) > wanted.memory:
        return DataSet(images, torch.from_numpy(labels.copy()), classes, files=pictures.files)
    kept, pixels = read_all(images, labels)
    files = pictures.take(kept).files
    return DataSet(torch.from_numpy(pixels), torch.from_numpy(labels[kept]), classes, files=files)


def _first_size(pictures: Pictures) -> tuple[int, int]:
    """Return height and width of the first picture that can be read."""
    error = PictureError("no pictures")
    for number in range(min(len(pictures), 100)):
        try:
            height, width = pictures.read(number).shape[:2]
        except PictureError as raised:
            error = raised
        else:
            return height, width
    raise error


def read_all(
    images: StoredImages, labels: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read images into memory; leave out broken ones, with a warning that names some.

    Parameters
    ----------
    labels : int64 (N,); without them all images count as one class

    Returns
    -------
    the indices of the images that can be read, int64 (M,), and their pixels, uint8 (M, C, H, W)

    Raises
    ------
    DataError
        No image of a class can be read, or one has another size and images are not resized.
    """
    pixels = np.empty(images.shape, np.uint8)
    kept: list[int] = []
    broken: dict[int, str] = {}
    for number in range(len(images)):
        try:
            image = images.read(number)
        except PictureError as error:
            broken[number] = str(error)
        else:
            pixels[len(kept)] = image.transpose(2, 0, 1)
            kept.append(number)
    _check_classes(np.zeros(len(images), np.int64) if labels is None else labels, kept, broken)
    if broken:
        _LOG.warning("%s", shown(broken_line(list(broken.values()))))
    return np.array(kept, np.int64), pixels[: len(kept)]


def _check_classes(labels: NDArray[np.int64], kept: list[int], broken: dict[int, str]) -> None:
    """Raise DataError if no image of a class could be read."""
    there, read = np.bincount(labels), np.bincount(labels[kept], minlength=labels.max() + 1)
    for label in np.flatnonzero((there > 0) & (read == 0)):
        last = max(number for number in broken if labels[number] == label)
        of_class = " of its class" if len(there) > 1 else ""
        raise DataError(f"{broken[last]}; no image{of_class} can be read ({there[label]} tried)")
