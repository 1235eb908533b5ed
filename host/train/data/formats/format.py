"""What every format of data sets is, and what their readers share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path

from torch import Tensor

from tutelage.core.errors import one_line
from tutelage.host.train.data.data_set import DataError, DataSet

MAX_BYTES = 1 << 32  # of the images of one split


class DataFormat:
    """How the files of a data set are read.

    Attributes
    ----------
    name : as `kind` of a training configuration takes it
    crop : of images that a size is given for; "none" where images have their own size only
    """

    name: str
    crop = "none"

    def default_path(self) -> Path:
        """Return where the data set is when no path is given.

        Raises
        ------
        DataError
            No such place is known, or nothing is there.
        """
        raise DataError(f"{self.name}: give the path of the data set")

    def read(self, path: Path, split: str, size: int) -> DataSet:
        """Read one split into memory; its form is set by the caller.

        Parameters
        ----------
        split : "train" or "test"
        size : side in pixels to which images are resized, 0 for their own; a format whose images
            have their own size only ignores it

        Raises
        ------
        DataError
            A file is missing, malformed or cut short.
        OSError
            The system refused.
        """
        raise NotImplementedError

    def known_shape(self, path: Path | None) -> tuple[tuple[int, int, int], int] | None:
        """Return (C, H, W) and the number of classes where these are known without reading."""
        return None


def shown_size(shape: Sequence[int]) -> str:
    """Return height and width, the last two of `shape`, for messages."""
    return f"{shape[-2]}x{shape[-1]}"


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements, an integer of any size: a header may claim more than 2**64."""
    return prod(shape)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return class names where none are known."""
    return tuple(str(number) for number in range(count))


def check_labels(labels: Tensor, classes: int, path: Path | str) -> None:
    """Raise DataError where a label is not among the classes."""
    highest = int(labels.max())
    if highest >= classes:
        raise DataError(f"{path}: label {highest} is out of range, there are {classes} classes")


def reason_of(error: Exception) -> str:
    """Return what an exception says, in one line, without the file that the message names."""
    return one_line(getattr(error, "strerror", None) or error)
