"""Folders of image files: a directory for each class."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.image_files import (
    IMAGE_SUFFIXES,
    broken_line,
    class_folders,
    find_images,
    skipped_line,
)
from tutelage.core.images.input_form import InputForm
from tutelage.core.text import shown
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import MAX_BYTES, DataFormat, shown_size
from tutelage.host.train.data.formats.registry import register_format
from tutelage.host.train.data.image_io import read_bgr

_LOG = logging.getLogger(__name__)  # without a handler warnings go to standard error

TEST_NAMES = ("test", "val", "valid")
TEST_EVERY = 5  # a folder without train/ gives every fifth image of a class to the test split


class FolderFormat(DataFormat):
    """train/<class>/<image> and test/<class>/<image>, or <class>/<image>."""

    name = "folder"
    crop = "center"

    def read(self, path: Path, split: str, size: int) -> DataSet:
        if not path.is_dir():
            raise DataError(f"{path}: no such directory")
        classes, files, skipped = _folder_files(path, split)
        if not any(files):
            raise DataError(f"{path}: holds no {split} images ({', '.join(IMAGE_SUFFIXES)})")
        images, labels, paths = _read_images(files, size)
        if line := skipped_line(skipped):
            _LOG.warning("%s", shown(f"{path}: {line}"))
        return DataSet(torch.from_numpy(images), torch.tensor(labels), classes, files=tuple(paths))


register_format(FolderFormat())


def _folder_files(path: Path, split: str) -> tuple[tuple[str, ...], list[list[Path]], Counter[str]]:
    """The class names, in their order each class's files of the split, and what was skipped.

    The train split says which classes there are; a class may lack test images, not others.
    """
    test = next((path / name for name in TEST_NAMES if (path / name).is_dir()), None)
    if (path / "train").is_dir():
        classes, skipped = _class_files(path / "train", required=True)
        if split == "train":
            return tuple(classes), list(classes.values()), skipped
        if test is None:
            raise DataError(f"{path}: has train but none of {', '.join(TEST_NAMES)}")
        tested, skipped = _class_files(test, required=False)
        for name in tested:
            if name not in classes:
                raise DataError(f"{test / name}: {path / 'train'} has no such class")
        return tuple(classes), [tested.get(name, []) for name in classes], skipped
    if test is not None:
        raise DataError(f"{path}: has {test.name} but no train directory")
    classes, skipped = _class_files(path, required=True)
    if split == "test":  # both splits are of the same files: said once
        skipped = Counter()
    last = TEST_EVERY - 1
    return (
        tuple(classes),
        [
            [file for i, file in enumerate(files) if (i % TEST_EVERY == last) == (split == "test")]
            for files in classes.values()
        ],
        skipped,
    )


def _class_files(directory: Path, required: bool) -> tuple[dict[str, list[Path]], Counter[str]]:
    """Each class directory's images with those below it, and how many files were skipped.

    With `required` no class may be empty.
    """
    found = find_images(directory)
    files: dict[str, list[Path]] = {path.name: [] for path in class_folders(directory)}
    if not files:
        raise DataError(f"{directory}: holds no class directories")
    for path in found.images:
        inside = path.relative_to(directory).parts
        if len(inside) > 1:
            files[inside[0]].append(path)
        else:
            found.skipped["outside of the class directories"] += 1
    for name, images in files.items():
        if required and not images:
            reason = f"; {line}" if (line := found.report()) else ""
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise DataError(f"{directory / name}: holds no images ({kinds}){reason}")
    return files, found.skipped


def _read_images(
    classes: Sequence[Sequence[Path]], size: int
) -> tuple[NDArray[np.uint8], list[int], list[Path]]:
    """RGB images (N, 3, H, W), their labels and files; broken ones are left out and named."""
    count = sum(map(len, classes))
    images: NDArray[np.uint8] | None = None
    labels: list[int] = []
    read: list[Path] = []
    broken: list[str] = []
    first = Path()
    for label, paths in enumerate(classes):
        before = len(labels)
        for path in paths:
            try:
                image = _read_image(path, size)
            except DataError as error:
                broken.append(str(error))
                continue
            if images is None:
                images, first = _room_for(count, image, path), path
            _check_shape(image, path, images.shape[2:], first)
            images[len(labels)] = image.transpose(2, 0, 1)
            labels.append(label)
            read.append(path)
        if paths and len(labels) == before:
            raise DataError(f"{broken[-1]}; no image of its class can be read ({len(paths)} tried)")
    if broken:
        _LOG.warning("%s", shown(broken_line(broken)))
    assert images is not None  # there are images, and one of each class was read
    return images[: len(labels)], labels, read


def _room_for(count: int, image: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """An array for so many images (N, C, H, W) like this one (H, W, C)."""
    if count * image.size > MAX_BYTES:
        raise DataError(
            f"{path.parent.parent}: {count} images of {shown_size(image.shape[:2])} are more"
            f" than {MAX_BYTES} bytes; give a smaller size"
        )
    height, width, channels = image.shape
    return np.empty((count, channels, height, width), np.uint8)


def _check_shape(image: NDArray[np.uint8], path: Path, shape: Sequence[int], first: Path) -> None:
    if image.shape[:2] != tuple(shape):
        raise DataError(
            f"{path}: is {shown_size(image.shape[:2])} and {first} is"
            f" {shown_size(shape)}; give size to make them equal"
        )


def _read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """One RGB image (H, W, 3), with `size` cropped in the centre and resized to that side."""
    bgr = read_bgr(path)
    if size:
        bgr = ImageFitter(InputForm(size, size, "bgr", crop=FolderFormat.crop))(bgr)
    return np.asarray(bgr[..., ::-1], np.uint8)
