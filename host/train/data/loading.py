"""Reading of one split of a data set in any format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tutelage.core.images.input_form import COLOURS, LONGEST_SIDE, FormError
from tutelage.host.train.data.data_set import DataError, DataSet, make_form
from tutelage.host.train.data.formats.format import DEFAULT_MEMORY, DataFormat, Wanted, shown_size
from tutelage.host.train.data.formats.registry import data_format

PICTURE_COLOURS = ("rgb", "grey")
"""Colours that pictures of folders and shards can be converted to."""

SPLITS = ("train", "test")


def load(
    kind: str,
    path: Path | None,
    split: str,
    size: int | Sequence[int] = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    memory: int = DEFAULT_MEMORY,
    colour: str = "",
) -> DataSet:
    """Read one split of a data set.

    Parameters
    ----------
    kind : name of the format (`tutelage.host.train.data.formats.registry.format_names`):
        idx, a directory with MNIST's four files, each plain or .gz; cifar10 and cifar100, the
        *binary* version as a directory or as the .tar.gz; folder, train/<class>/<image> and
        test/<class>/<image> (or val, valid), or <class>/<image>, of which every fifth image is
        for testing; images, all images below the path, without labels;
        webdataset, train/*.tar and test/*.tar, or *.tar, of which every fifth is for testing
    path : of the data set; None is Debian's Fashion-MNIST for idx, an error for the others
    split : "train" or "test"
    size : height and width in pixels, or one number for both, to which pictures of a folder or of
        shards are resized, after a centre crop to that aspect ratio; 0 keeps their size
    mean, std : see make_form()
    memory : most bytes of pixels to read into memory; larger folders and shards are streamed
    colour : "rgb" or "grey", to which pictures of a folder or of shards are converted; "": RGB, or
        the data set's own colours

    Raises
    ------
    DataError
        A file is missing, malformed or truncated, images and labels do not match, or they have
        another number of channels than mean and std.
    ValueError
        Kind, split, size or colour is not one of those above.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    reader = data_format(kind)
    path = path or reader.default_path()
    check_colour(colour)
    wanted = Wanted(height_and_width(size), memory, colour or "rgb")
    try:
        data = reader.read(path, split, wanted)
    except OSError as error:  # of the operating system, where a format has no better message
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    if colour and data.shape[0] != COLOURS[colour]:
        own = "grey" if data.shape[0] == 1 else "in colour"
        raise DataError(
            f"{path}: images are {own}; colour converts pictures of folders and shards only"
        )
    return _formed(data, reader, path, wanted, mean, std)


def load_held_out(kind: str, path: Path, train: DataSet, memory: int = DEFAULT_MEMORY) -> DataSet:
    """Read validation images from a separate directory, in the form of the training images.

    Raises
    ------
    DataError
        As for `load`, or this kind of data set does not support such a directory.
    """
    reader = data_format(kind)
    wanted = Wanted(train.shape[1:], memory, train.form.colour)
    try:
        data = reader.read_held_out(path, train.classes, wanted)
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    return replace(data, form=train.form)


def check_colour(colour: str) -> None:
    """Raise ValueError unless `colour` is "" or one of `PICTURE_COLOURS`."""
    if colour not in ("", *PICTURE_COLOURS):
        raise ValueError(f"colour is {colour!r}; it must be {' or '.join(PICTURE_COLOURS)}")


def height_and_width(size: int | Sequence[int]) -> tuple[int, int] | None:
    """Return height and width in pixels; None for 0, with which pictures keep their size.

    Raises
    ------
    ValueError
        `size` is neither 0, nor one or two numbers from 1 to `LONGEST_SIDE`.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if sides == (0, 0):
        return None
    if len(sides) != 2 or not all(1 <= side <= LONGEST_SIDE for side in sides):
        raise ValueError(
            f"size is {size}; it must be a number of pixels up to {LONGEST_SIDE}, or "
            "[height, width]"
        )
    return sides[0], sides[1]


def _formed(
    data: DataSet,
    reader: DataFormat,
    path: Path,
    wanted: Wanted,
    mean: Sequence[float],
    std: Sequence[float],
) -> DataSet:
    """Return the data set with the form of its images; raise DataError if their size is wrong."""
    if wanted.size and data.shape[1:] != wanted.size:
        raise DataError(
            f"{path}: images are {shown_size(data.shape)}; size {shown_size(wanted.size)} resizes "
            "folders and shards only"
        )
    try:
        crop = reader.crop if wanted.size else "none"
        return replace(data, form=make_form(data.shape, mean, std, crop))
    except FormError as error:
        raise DataError(f"{path}: {error}") from error
