"""What every format of data sets is, and what their readers share."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import Tensor

from tutelage.core.errors import one_line
from tutelage.host.train.data.data_set import DataError, DataSet

MAX_BYTES = 1 << 32
"""Of the images of one split that can only be in memory."""

DEFAULT_MEMORY = 1 << 30
"""Bytes of the images of one split that are read into memory; of more they are streamed."""

TEST_NAMES = ("test", "val", "valid", "validation")
"""Of directories and shards of a test split; the first that is there counts."""
TAR_ERRORS = (tarfile.TarError, OSError, ValueError, ArithmeticError, RuntimeError)
"""Beside its own errors tarfile lets through what malformed numbers, names and chains of headers
cause in it."""


@dataclass(frozen=True)
class Wanted:
    """How the images of a split are to be read.

    Attributes
    ----------
    size : height and width to which pictures are cropped and resized; None leaves them. A format
        whose images have their own size only ignores it
    memory : bytes of images that may be read into memory; a format of single files streams larger
        sets
    colour : "rgb" or "grey", of pictures; a format whose images have their own colours ignores it
    """

    size: tuple[int, int] | None = None
    memory: int = DEFAULT_MEMORY
    colour: str = "rgb"


class DataFormat:
    """How the files of a data set are read.

    Attributes
    ----------
    name : as `kind` of a training configuration takes it
    crop : of images that a size is given for; "none" where images have their own size only
    is_labelled : its images have labels
    """

    name: str
    crop = "none"
    is_labelled = True

    def default_path(self) -> Path:
        """Return where the data set is when no path is given.

        Raises
        ------
        DataError
            No such place is known, or nothing is there.
        """
        raise DataError(f"{self.name}: give the path of the data set")

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        """Read one split; its form is set by the caller.

        Parameters
        ----------
        split : "train" or "test"

        Raises
        ------
        DataError
            A file is missing, malformed or cut short.
        OSError
            The system refused.
        """
        raise NotImplementedError

    def read_held_out(self, path: Path, classes: tuple[str, ...], wanted: Wanted) -> DataSet:
        """Read images for validation that have a place of their own, with the training's classes.

        Raises
        ------
        DataError, OSError
            As `read`; or the format has no such place.
        """
        raise DataError(f"{path}: {self.name} has no folder for validation; give a share, as 0.1")

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
