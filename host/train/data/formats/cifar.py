"""CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz), the binary versions."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import (
    TAR_ERRORS,
    DataFormat,
    Wanted,
    check_labels,
    element_count,
    numbered_classes,
    reason_of,
)
from tutelage.host.train.data.formats.registry import register_format

MAX_ARCHIVE = 1 << 28  # bytes of an unpacked archive; the published ones have 176 and 162 MiB
CIFAR_SHAPE = (3, 32, 32)
CIFAR_MAX_RECORDS = 50_000  # in one file
CIFAR_MAX_FILE = CIFAR_MAX_RECORDS * (2 + 3 * 32 * 32)


class CifarFormat(DataFormat):
    """A binary version: each record is `label_bytes` labels and 3x32x32 pixels.

    Parameters
    ----------
    name : of the format
    directory : name of the directory in the archive
    files : names of the files by split
    names : name of the file with the class names
    label_bytes : labels of a record, of one byte each; the last one is used
    classes : number of classes
    """

    def __init__(
        self,
        name: str,
        directory: str,
        files: dict[str, tuple[str, ...]],
        names: str,
        label_bytes: int,
        classes: int,
    ) -> None:
        self.name, self.directory, self.files, self.names = name, directory, files, names
        self.label_bytes, self.classes = label_bytes, classes

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        """Read the files of one split, from a directory or an archive; none may be missing."""
        names = self.files[split]
        if path.is_dir():
            files = _cifar_directory(path, self.directory, (*names, self.names))
        else:
            files = _cifar_archive(path, (*names, self.names))
        parts = []
        for name in names:
            if name not in files:
                raise DataError(
                    f"{path}: has no {name}: give the binary version, not the Python one"
                )
            parts.append(self._records(files[name], f"{path}: {name}"))
        classes = numbered_classes(self.classes)
        if self.names in files:
            classes = _cifar_names(files[self.names], self.classes, f"{path}: {self.names}")
        records = np.concatenate(parts)
        images = np.ascontiguousarray(records[:, self.label_bytes :]).reshape(-1, *CIFAR_SHAPE)
        labels = records[:, self.label_bytes - 1].astype(np.int64)
        return DataSet(torch.from_numpy(images), torch.from_numpy(labels), classes)

    def known_shape(self, path: Path | None) -> tuple[tuple[int, int, int], int] | None:
        return CIFAR_SHAPE, self.classes

    def _records(self, data: bytes, where: str) -> NDArray[np.uint8]:
        """Return the records (N, label bytes + 3072) of one file."""
        length = self.label_bytes + element_count(CIFAR_SHAPE)
        if not data or len(data) % length:
            raise DataError(
                f"{where}: {len(data)} bytes are not whole records of {length}: truncated, or not "
                "a CIFAR file"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, length)
        check_labels(torch.tensor(records[:, self.label_bytes - 1].max()), self.classes, where)
        return records


CIFAR10 = CifarFormat(
    "cifar10",
    "cifar-10-batches-bin",
    {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    "batches.meta.txt",
    1,
    10,
)
CIFAR100 = CifarFormat(
    "cifar100",
    "cifar-100-binary",
    {"train": ("train.bin",), "test": ("test.bin",)},
    "fine_label_names.txt",
    2,
    100,
)
register_format(CIFAR10)
register_format(CIFAR100)


def _cifar_directory(path: Path, inner: str, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of those files that `path`, or `inner` in it, has, by name."""
    if (path / inner).is_dir():
        path = path / inner
    files = {}
    for name in names:
        file = path / name
        if file.is_file():
            _check_cifar_size(file.stat().st_size, str(file))
            files[name] = file.read_bytes()
    return files


def _cifar_archive(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the regular members of a .tar.gz that have those base names.

    The whole archive is unpacked in memory first: tarfile trusts the sizes in headers, and this
    bounds how much it can read.
    """
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_ARCHIVE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as .tar.gz: {reason_of(error)}") from error
    if len(data) > MAX_ARCHIVE:
        raise DataError(
            f"{path}: unpacks to more than {MAX_ARCHIVE} bytes: not an archive of CIFAR"
        )
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in names or not member.isreg() or member.issparse():
                    continue
                if name in files:
                    raise DataError(f"{path}: has {name} twice")
                _check_cifar_size(member.size, f"{path}: {name}")
                content = archive.extractfile(member)
                files[name] = content.read() if content else b""
    except DataError:
        raise
    except TAR_ERRORS as error:
        raise DataError(f"{path}: not a readable tar archive: {reason_of(error)}") from error
    return files


def _check_cifar_size(size: int, where: str) -> None:
    if size > CIFAR_MAX_FILE:
        raise DataError(f"{where}: {size} bytes are more than the {CIFAR_MAX_FILE} of a CIFAR file")


def _cifar_names(data: bytes, count: int, where: str) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in data.decode().splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a text file") from error
    if len(names) != count:
        raise DataError(f"{where}: {len(names)} class names instead of {count}")
    return names
