"""Interface of a data set format, and helpers that the formats share."""

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
"""Most bytes of the images of one split in a format that cannot be streamed."""

DEFAULT_MEMORY = 1 << 30
"""Most bytes of the images of one split to read into memory; a larger split is streamed."""

TEST_NAMES = ("test", "val", "valid", "validation")
"""Names of directories and shards of a test split; the first that exists is used."""
TAR_ERRORS = (tarfile.TarError, OSError, ValueError, ArithmeticError, RuntimeError)
"""Errors that tarfile raises for damaged files: its own, and those that malformed numbers, names
and chains of headers cause in it."""


@dataclass(frozen=True)
class Wanted:
    """How to read the images of a split.

    Attributes
    ----------
    size : height and width to which pictures are cropped and resized; None keeps their size. A
        format whose images have a fixed size ignores it
    memory : most bytes of images to read into memory; a format of single files streams larger sets
    colour : "rgb" or "grey", to which pictures are converted; a format whose images have fixed
        colours ignores it
    """

    size: tuple[int, int] | None = None
    memory: int = DEFAULT_MEMORY
    colour: str = "rgb"


class DataFormat:
    """Reader of one format of data sets.

    Attributes
    ----------
    name : the value of `kind` in a training configuration
    crop : how images are cropped before they are resized, "center"; "none" if they have a fixed
        size
    is_labelled : whether its images have labels
    """

    name: str
    crop = "none"
    is_labelled = True

    def default_path(self) -> Path:
        """Return the path of the data set to use if none is given.

        Raises
        ------
        DataError
            The format has no default, or it does not exist.
        """
        raise DataError(f"{self.name}: give the path of the data set")

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        """Read one split; the caller sets its form.

        Parameters
        ----------
        split : "train" or "test"

        Raises
        ------
        DataError
            A file is missing, malformed or truncated.
        OSError
            The operating system reported an error.
        """
        raise NotImplementedError

    def read_held_out(self, path: Path, classes: tuple[str, ...], wanted: Wanted) -> DataSet:
        """Read validation images from a separate directory.

        Parameters
        ----------
        classes : of the training set

        Raises
        ------
        DataError, OSError
            As for `read`; or the format does not support such a directory.
        """
        raise DataError(
            f"{path}: {self.name} takes no directory for validation: give a share, such as 0.1"
        )

    def known_shape(self, path: Path | None) -> tuple[tuple[int, int, int], int] | None:
        """Return (C, H, W) and the number of classes; None if they are not known before reading."""
        return None


def shown_size(shape: Sequence[int]) -> str:
    """Return height and width, the last two of `shape`, as "HxW" for messages."""
    return f"{shape[-2]}x{shape[-1]}"


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements; of any size, since a header may claim more than 2**64."""
    return prod(shape)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return numbers as class names, for data sets that name no classes."""
    return tuple(str(number) for number in range(count))


def check_labels(labels: Tensor, classes: int, path: Path | str) -> None:
    """Raise DataError if a label is not less than the number of classes."""
    highest = int(labels.max())
    if highest >= classes:
        raise DataError(f"{path}: label {highest} is out of range: there are {classes} classes")


def reason_of(error: Exception) -> str:
    """Return the text of an exception in one line, without the name of the file."""
    return one_line(getattr(error, "strerror", None) or error)
