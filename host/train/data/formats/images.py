"""Image files without labels, for quantising a trained network: its own predictions label them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tutelage.core.files import read_bounded
from tutelage.core.images.image_files import IMAGE_SUFFIXES, skipped_line, walk_images
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.folder import FolderPictures
from tutelage.host.train.data.formats.format import TEST_NAMES, DataFormat, Wanted
from tutelage.host.train.data.formats.pictures import data_set_of
from tutelage.host.train.data.formats.registry import register_format
from tutelage.host.train.data.path_table import PathTable
from tutelage.host.train.data.splits import TEST_EVERY, is_in_split

CLASSES = "classes.txt"
"""File in the folder that names the network's outputs, one per line; else they are numbered."""

MAX_NAMES = 1 << 22
"""Most bytes of `CLASSES`."""


class ImagesFormat(DataFormat):
    """All images below a folder, or those of its folders train and test.

    Without these two folders every fifth image is for testing; fewer than five images are used for
    both.
    """

    name = "images"
    crop = "center"
    is_labelled = False

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        if not path.is_dir():
            raise DataError(f"{path}: no such directory")
        place, is_whole = _place(path, split)
        skipped: Counter[str] = Counter()
        start = len(os.path.join(place, ""))  # noqa: PTH118  (with the separator)
        files = PathTable(place, (file[start:] for file in walk_images(place, skipped)))
        if not len(files):
            reason = f"; {line}" if (line := skipped_line(skipped)) else ""
            raise DataError(f"{place}: has no images ({', '.join(IMAGE_SUFFIXES)}){reason}")
        if not is_whole and len(files) >= TEST_EVERY:
            chosen = is_in_split(np.zeros(len(files), np.int64), split)
            files = files.take(np.flatnonzero(chosen))
        none = np.zeros(len(files), np.int64)
        data = data_set_of(FolderPictures(files), none, _names(path / CLASSES), wanted, self.crop)
        return replace(data, labels=torch.full_like(data.labels, -1))


register_format(ImagesFormat())


def _place(path: Path, split: str) -> tuple[Path, bool]:
    """Return the folder that has a split's images, and whether it has no others."""
    test = next((path / name for name in TEST_NAMES if (path / name).is_dir()), None)
    if test is None or not (path / "train").is_dir():
        return path, False
    return (test if split == "test" else path / "train"), True


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    content = read_bounded(path, MAX_NAMES)
    if len(content) > MAX_NAMES:
        raise DataError(f"{path}: more than the limit of {MAX_NAMES:,} bytes")
    names = tuple(line.strip() for line in content.decode("utf-8", "replace").splitlines())
    if not all(names):
        raise DataError(f"{path}: line {names.index('') + 1} is empty: each line names a class")
    return names
