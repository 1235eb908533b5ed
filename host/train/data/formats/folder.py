"""Folders of image files, with a directory for each class."""

from __future__ import annotations

import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.images.image_files import (
    IMAGE_SUFFIXES,
    class_folders,
    skipped_line,
    walk_images,
)
from tutelage.core.text import shown
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import TEST_NAMES, DataFormat, Wanted
from tutelage.host.train.data.formats.pictures import data_set_of
from tutelage.host.train.data.formats.registry import register_format
from tutelage.host.train.data.image_io import read_bgr
from tutelage.host.train.data.path_table import PathTable
from tutelage.host.train.data.splits import is_in_split
from tutelage.host.train.data.stored_images import Chosen

_LOG = logging.getLogger(__name__)  # without a handler warnings go to standard error
_KINDS = ", ".join(IMAGE_SUFFIXES)


class TooFewImages(DataError):
    """There are too few images to keep some for testing."""


class FolderFormat(DataFormat):
    """train/<class>/<image> and test/<class>/<image>, or <class>/<image>."""

    name = "folder"
    crop = "center"

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        if not path.is_dir():
            raise DataError(f"{path}: no such directory")
        found = _of_split(path, split)
        if not len(found.pictures):
            raise DataError(f"{path}: no {split} images ({_KINDS})")
        return self._data_set(path, found, wanted)

    def read_held_out(self, path: Path, classes: tuple[str, ...], wanted: Wanted) -> DataSet:
        if not path.is_dir():
            raise DataError(f"{path}: no such directory")
        found = _among(_in_folder(path, required=False), classes, path)
        if not len(found.pictures):
            raise DataError(f"{path}: has no images ({_KINDS})")
        return self._data_set(path, found, wanted)

    def _data_set(self, path: Path, found: _Found, wanted: Wanted) -> DataSet:
        data = data_set_of(found.pictures, found.labels, found.classes, wanted, self.crop)
        if line := skipped_line(found.skipped):
            _LOG.warning("%s", shown(f"{path}: {line}"))
        return data


register_format(FolderFormat())


class FolderPictures:
    """Image files below a folder, see `Pictures`."""

    containers = None

    def __init__(self, files: PathTable) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def take(self, chosen: Chosen) -> FolderPictures:
        return FolderPictures(self.files.take(chosen))

    def read(self, number: int) -> NDArray[np.uint8]:
        return read_bgr(self.files[number])

    def name(self, number: int) -> str:
        return str(self.files[number])


@dataclass(frozen=True)
class _Found:
    """Images, sorted by class and path, and the number of skipped files by reason."""

    classes: tuple[str, ...]
    pictures: FolderPictures
    labels: NDArray[np.int64]
    skipped: Counter[str]

    def where(self, chosen: NDArray[np.bool_]) -> _Found:
        rows = np.flatnonzero(chosen)
        return _Found(self.classes, self.pictures.take(rows), self.labels[rows], self.skipped)


def _of_split(path: Path, split: str) -> _Found:
    """Return the images of one split.

    The train split determines the classes; a class may lack test images, but no others.
    """
    test = next((path / name for name in TEST_NAMES if (path / name).is_dir()), None)
    if (path / "train").is_dir():
        if split == "train":
            return _in_folder(path / "train", required=True)
        if test is None:
            raise DataError(f"{path}: has train but no test directory ({', '.join(TEST_NAMES)})")
        classes = tuple(folder.name for folder in class_folders(path / "train"))
        return _among(_in_folder(test, required=False), classes, path / "train")
    if test is not None:
        raise DataError(f"{path}: has {test.name} but no train directory")
    found = _in_folder(path, required=True)
    if split == "test":  # both splits are of the same files: report the skipped ones once
        found.skipped.clear()
    if len(found.labels) == len(found.classes):
        raise TooFewImages(
            f"{path}: one image of each class is too few for training and testing: put at least "
            'two into each class directory, or quantise without labels with kind = "images"'
        )
    return found.where(is_in_split(found.labels, split))


def _among(found: _Found, classes: tuple[str, ...], where: Path) -> _Found:
    """Return the images with the labels of the training set's classes."""
    for name in found.classes:
        if name not in classes:
            raise DataError(f"{found.pictures.files.folder / name}: {where} has no class {name!r}")
    numbers = np.array([classes.index(name) for name in found.classes], np.int64)
    return _Found(classes, found.pictures, numbers[found.labels], found.skipped)


def _in_folder(directory: Path, required: bool) -> _Found:
    """Return the images at any depth of each class directory.

    Parameters
    ----------
    required : raise DataError if a class is empty
    """
    classes = tuple(path.name for path in class_folders(directory))
    if not classes:
        raise DataError(f"{directory}: has no class directories")
    skipped: Counter[str] = Counter()
    labels = array("q")
    files = PathTable(directory, _labelled(directory, classes, labels, skipped))
    counts = np.bincount(np.frombuffer(labels, np.int64), minlength=len(classes))
    if required and not counts.all():
        reason = f"; {line}" if (line := skipped_line(skipped)) else ""
        name = classes[int(counts.argmin())]
        raise DataError(f"{directory / name}: has no images ({_KINDS}){reason}")
    return _Found(classes, FolderPictures(files), np.frombuffer(labels, np.int64), skipped)


def _labelled(
    directory: Path, classes: Sequence[str], labels: array[int], skipped: Counter[str]
) -> Iterator[str]:
    """Yield the images' paths relative to a directory, and append the label of each to `labels`."""
    numbers = {name: number for number, name in enumerate(classes)}
    start = len(os.path.join(directory, ""))  # noqa: PTH118  (with the separator)
    for path in walk_images(directory, skipped):
        inside = path[start:]
        name, separator, _ = inside.partition(os.sep)
        if separator:
            labels.append(numbers[name])
            yield inside
        else:
            skipped["outside of the class directories"] += 1
