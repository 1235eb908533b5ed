"""IDX, MNIST's format: unsigned bytes with a header, plain or gzipped."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tutelage.core.images.picture_header import DEFLATE_RATIO
from tutelage.core.text import counted
from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.formats.format import (
    MAX_BYTES,
    DataFormat,
    Wanted,
    check_labels,
    element_count,
    numbered_classes,
    reason_of,
)
from tutelage.host.train.data.formats.registry import register_format

DEFAULT_IDX = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist

FASHION = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_SHAPE = (1, 28, 28)
_PREFIX = {"train": "train", "test": "t10k"}


class IdxFormat(DataFormat):
    """A directory with MNIST's four files; by default Debian's Fashion-MNIST."""

    name = "idx"

    def default_path(self) -> Path:
        if not DEFAULT_IDX.is_dir():
            raise DataError(
                f"{DEFAULT_IDX}: no such directory: apt install dataset-fashion-mnist, or give "
                "another path"
            )
        return DEFAULT_IDX

    def read(self, path: Path, split: str, wanted: Wanted) -> DataSet:
        image_file = _idx_file(path, f"{_PREFIX[split]}-images-idx3-ubyte")
        label_file = _idx_file(path, f"{_PREFIX[split]}-labels-idx1-ubyte")
        images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
        if len(images) != len(labels):
            raise DataError(
                f"{label_file}: {counted(len(labels), 'label')} for {counted(len(images), 'image')}"
            )
        fashion = "fashion" in path.absolute().name.lower()
        classes = FASHION if fashion else numbered_classes(int(labels.max()) + 1)
        check_labels(labels, len(classes), label_file)
        return DataSet(images.unsqueeze(1), labels.long(), classes)

    def known_shape(self, path: Path | None) -> tuple[tuple[int, int, int], int] | None:
        if path is None and not DEFAULT_IDX.is_dir():
            return FASHION_SHAPE, len(FASHION)
        return None


register_format(IdxFormat())


def _idx_file(directory: Path, name: str) -> Path:
    """Return the path of a file, plain or .gz; raise DataError if there is neither."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{directory}: has neither {name} nor {name}.gz")


def _read_idx(path: Path, rank: int) -> Tensor:
    """Return the values of an IDX file of unsigned bytes, in the shape that its header gives.

    The format is described at http://yann.lecun.com/exdb/mnist.

    Raises
    ------
    DataError
        The file has another type or rank, no values, or fewer or more than its header says.
    """
    try:
        with _open(path) as stream:
            head = stream.read(4 + 4 * rank)
            if head[:4] != bytes((0, 0, 8, rank)):
                raise DataError(f"{path}: not an IDX file of unsigned bytes with {rank} dimensions")
            if len(head) < 4 + 4 * rank:
                raise DataError(f"{path}: truncated in its header")
            shape = struct.unpack_from(f">{rank}I", head, 4)
            size = element_count(shape)
            _check_size(path, shape, size)
            values = bytearray(stream.read(size))
            if len(values) < size:
                raise DataError(f"{path}: truncated: {len(values)} of {size} values")
            if stream.read(1):
                raise DataError(f"{path}: more bytes follow the {size} values")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    return torch.frombuffer(values, dtype=torch.uint8).view(shape)


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]  # has the methods of BinaryIO
    return path.open("rb")


def _check_size(path: Path, shape: Sequence[int], size: int) -> None:
    """Raise DataError if the file cannot contain `size` bytes, before memory is allocated."""
    if not size:
        raise DataError(f"{path}: empty: its header says {shape}")
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes are more than the limit of {MAX_BYTES}")
    possible = path.stat().st_size * (DEFLATE_RATIO if path.suffix == ".gz" else 1)
    if size > possible:
        raise DataError(f"{path}: truncated: its header says {size} values")
