"""Reading one split of a data set, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tutelage.core.images.input_form import FormError
from tutelage.host.train.data.data_set import DataError, DataSet, make_form
from tutelage.host.train.data.formats.format import shown_size
from tutelage.host.train.data.formats.registry import data_format

SPLITS = ("train", "test")


def load(
    kind: str,
    path: Path | None,
    split: str,
    size: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> DataSet:
    """Read one split of a data set into memory.

    Parameters
    ----------
    kind : a format's name, of `tutelage.host.train.data.formats.registry.format_names`:
        idx, a directory with MNIST's four files, each plain or .gz; cifar10 and cifar100, the
        *binary* version as a directory or as the .tar.gz; folder, train/<class>/<image> and
        test/<class>/<image> (or val, valid), or <class>/<image>, of which every fifth is test.
    path : where it is; None is Debian's Fashion-MNIST for idx, an error for the others
    split : "train" or "test"
    size : side in pixels to which a folder's images are resized, after their largest middle square
        was cropped; 0 leaves them
    mean, std : see make_form()

    Raises
    ------
    DataError
        A file is missing, malformed or cut short, or images and labels do not fit together, or
        they have another number of channels than mean and std.
    ValueError
        Kind, split or size is none of those above.
    """
    reader = data_format(kind)
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    if size < 0:
        raise ValueError(f"size is {size}; it must not be negative")
    path = path or reader.default_path()
    try:
        data = reader.read(path, split, size)
    except OSError as error:  # reached where no more is known than that the system refused
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    if size and data.shape[1:] != (size, size):
        raise DataError(
            f"{path}: images are {shown_size(data.shape)}; size {size} resizes folders only"
        )
    try:
        crop = reader.crop if size else "none"
        return replace(data, form=make_form(data.shape, mean, std, crop))
    except FormError as error:
        raise DataError(f"{path}: {error}") from error
