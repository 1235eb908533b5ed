"""WebDataset shards: .tar files of pictures, each beside a .cls file with its label.

A sample is a sequence of members that share a name up to the first dot: `0001.jpg`, `0001.cls`.
Nothing is extracted: the headers of the shards are read once, and each picture on access from its
offset in the shard. The format is that of https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import io
import logging
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tutelage.core.files import read_bounded
from tutelage.core.images.decoder import MAX_IMAGE_BYTES, decode_image
from tutelage.core.images.image_files import IMAGE_SUFFIXES, skipped_line
from tutelage.core.text import shown
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import (
    TAR_ERRORS,
    TEST_NAMES,
    DataFormat,
    Wanted,
    numbered_classes,
    reason_of,
)
from tutelage.host.train.data.formats.pictures import data_set_of
from tutelage.host.train.data.formats.registry import register_format
from tutelage.host.train.data.splits import is_in_split
from tutelage.host.train.data.stored_images import Chosen, PictureError

CLASS_FILES = ("classnames.txt", "classes.txt")
"""Files in the data set's folder that name the classes, one per line in the order of the labels."""

MAX_CLASSES = 100_000
_MAX_NAMES = 16 << 20  # bytes of a file of class names
_MAX_HEADER = 1 << 20  # bytes of a member's headers, among them its name
_MAX_LABEL = 20  # bytes of a .cls file
_SAMPLE = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
_LOG = logging.getLogger(__name__)


class WebDatasetFormat(DataFormat):
    """train/*.tar and test/*.tar; or shards with `train` and `test` in their names; or *.tar."""

    name = "webdataset"
    crop = "center"

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        shards, is_all = _of_split(path, split)
        pictures, labels = _read_shards(shards)
        train = labels if is_all or split == "train" else _labels_of(path, "train")
        classes = _classes(path, train)
        if is_all:
            rows = np.flatnonzero(is_in_split(labels, split))
            pictures, labels = pictures.take(rows), labels[rows]
        return self._data_set(path, pictures, labels, classes, wanted)

    def read_held_out(self, path: Path, classes: tuple[str, ...], wanted: Wanted) -> DataSet:
        return self._data_set(path, *_read_shards(_shards(path)), classes, wanted)

    def _data_set(
        self,
        path: Path,
        pictures: ShardPictures,
        labels: NDArray[np.int64],
        classes: tuple[str, ...],
        wanted: Wanted,
    ) -> DataSet:
        if not len(labels):
            raise DataError(
                f"{path}: too few images to keep some for testing: give shards of a test split"
            )
        if labels.max() >= len(classes):
            raise DataError(
                f"{path}: label {labels.max()} is out of range: there are {len(classes)} classes"
            )
        return data_set_of(pictures, labels, classes, wanted, self.crop)


register_format(WebDatasetFormat())


class ShardPictures:
    """Pictures within .tar files, see `Pictures`.

    Parameters
    ----------
    shards : the files
    containers : index of each picture's shard, (N,)
    starts, sizes : offset of each picture in its shard and its size, in bytes, (N,)
    """

    files = ()

    def __init__(
        self,
        shards: Sequence[Path],
        containers: NDArray[np.int64],
        starts: NDArray[np.int64],
        sizes: NDArray[np.int64],
    ) -> None:
        self._shards, self.containers, self._starts, self._sizes = shards, containers, starts, sizes

    def __len__(self) -> int:
        return len(self._starts)

    def take(self, chosen: Chosen) -> ShardPictures:
        return ShardPictures(
            self._shards, self.containers[chosen], self._starts[chosen], self._sizes[chosen]
        )

    def read(self, number: int) -> NDArray[np.uint8]:
        size = int(self._sizes[number])
        if size > MAX_IMAGE_BYTES:
            raise PictureError(f"{self.name(number)}: larger than {MAX_IMAGE_BYTES >> 20} MiB")
        try:
            with self._shards[self.containers[number]].open("rb") as file:
                file.seek(int(self._starts[number]))
                data = file.read(size)
            return np.asarray(decode_image(data), np.uint8)
        except (OSError, ValueError) as error:
            raise PictureError(f"{self.name(number)}: {reason_of(error)}") from error

    def name(self, number: int) -> str:
        """Return the shard of a picture and its offset there, for messages."""
        return f"{self._shards[self.containers[number]]}, picture at byte {self._starts[number]}"


# -- which shards ------------------------------------------------------------------------------


def _shards(folder: Path) -> list[Path]:
    """Return the .tar files of a folder, sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such directory")
    found = sorted(path for path in folder.glob("*.tar") if path.is_file())
    if not found:
        raise DataError(f"{folder}: has no .tar files")
    return found


def _of_split(path: Path, split: str) -> tuple[list[Path], bool]:
    """Return the shards of one split, and whether they contain both splits."""
    names = ("train",) if split == "train" else TEST_NAMES
    if (path / "train").is_dir():
        for name in names:
            if (path / name).is_dir():
                return _shards(path / name), False
        raise DataError(f"{path}: has train but no test directory ({', '.join(TEST_NAMES)})")
    shards = _shards(path)
    if not any(_is_named(shard, ("train",)) for shard in shards):
        return shards, True
    for name in names:
        if found := [shard for shard in shards if _is_named(shard, (name,))]:
            return found, False
    raise DataError(f"{path}: has shards of train but none of test ({', '.join(TEST_NAMES)})")


def _is_named(shard: Path, words: Sequence[str]) -> bool:
    return not set(words).isdisjoint(re.split(r"[^a-z]+", shard.stem.lower()))


def _labels_of(path: Path, split: str) -> NDArray[np.int64]:
    """Return the labels of a split; empty if a file names the classes, so that none are needed."""
    if any((path / name).is_file() for name in CLASS_FILES):
        return np.zeros(0, np.int64)
    return _read_shards(_of_split(path, split)[0])[1]


def _classes(path: Path, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names of the classes, or numbers if no file names them."""
    for name in CLASS_FILES:
        file = path / name
        if not file.is_file():
            continue
        data = read_bounded(file, _MAX_NAMES)
        try:
            names = tuple(line.strip() for line in data.decode().splitlines() if line.strip())
        except UnicodeDecodeError as error:
            raise DataError(f"{file}: not a text file") from error
        if not 0 < len(names) <= MAX_CLASSES or len(data) > _MAX_NAMES:
            raise DataError(f"{file}: must have 1 to {MAX_CLASSES} names, one per line")
        return names
    return numbered_classes(int(labels.max()) + 1) if len(labels) else ()


# -- samples of the shards ---------------------------------------------------------------------


def _read_shards(shards: Sequence[Path]) -> tuple[ShardPictures, NDArray[np.int64]]:
    """Return the pictures of all shards in order, and their labels; raise DataError on faults."""
    columns = {name: array("q") for name in ("container", "start", "size", "label")}
    skipped: Counter[str] = Counter()
    for number, shard in enumerate(shards):
        before = len(columns["label"])
        for sample in _samples(shard, skipped):
            columns["container"].append(number)
            columns["start"].append(sample.start)
            columns["size"].append(sample.size)
            columns["label"].append(sample.label)
        if len(columns["label"]) == before:
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise DataError(f"{shard}: has no sample: an image ({kinds}) and its .cls file")
    if line := skipped_line(skipped):
        _LOG.warning("%s", shown(f"{shards[0].parent}: {line}"))
    found = {name: np.frombuffer(column, np.int64) for name, column in columns.items()}
    pictures = ShardPictures(shards, found["container"], found["start"], found["size"])
    return pictures, found["label"]


@dataclass
class _Sample:
    """A sample of a shard, perhaps incomplete: offset and size of its picture, and its label."""

    key: str
    start: int = -1
    size: int = 0
    label: int = -1


def _samples(shard: Path, skipped: Counter[str]) -> Iterator[_Sample]:
    """Yield the complete samples of a shard; count others as skipped.

    Raises
    ------
    DataError
        The file is not a .tar file, is truncated, or has a label that is not a number.
    """
    current = _Sample("")
    try:
        file = _Bounded(io.FileIO(shard))
        with file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps every member
                matched = _SAMPLE.fullmatch(member.name)
                if not matched or not member.isreg() or member.issparse():
                    continue
                if matched[1] != current.key:
                    yield from _whole(current, skipped)
                    current = _Sample(matched[1])
                _add(current, member, matched[2].lower(), file, shard)
            yield from _whole(current, skipped)
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{shard}: truncated or damaged at byte {archive.offset}")
    except DataError:
        raise
    except TAR_ERRORS as error:
        raise DataError(f"{shard}: not a readable tar archive: {reason_of(error)}") from error


def _whole(sample: _Sample, skipped: Counter[str]) -> Iterator[_Sample]:
    """Yield the sample if it has a picture and a label; else count it as skipped."""
    if sample.start >= 0 and sample.label >= 0:
        yield sample
    elif sample.key:
        skipped["with no image or no .cls beside it"] += 1


def _add(
    sample: _Sample, member: tarfile.TarInfo, suffix: str, file: BinaryIO, shard: Path
) -> None:
    """Add a member of the archive, a label or a picture, to its sample."""
    if suffix == "cls":
        file.seek(member.offset_data)
        text = file.read(min(member.size, _MAX_LABEL))
        if not re.fullmatch(rb"\s*\d{1,9}\s*", text) or int(text) >= MAX_CLASSES:
            raise DataError(
                f"{shard}: {member.name}: a label must be a number from 0 to {MAX_CLASSES - 1}, "
                f"not {text!r}"
            )
        sample.label = int(text)
    elif f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES and sample.start < 0:
        sample.start, sample.size = member.offset_data, member.size


class _Bounded(io.BufferedReader):
    """File that limits the size of headers, since tarfile reads as many bytes as they claim."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)
