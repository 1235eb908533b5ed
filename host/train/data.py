"""Image classification data sets for training: read without torchvision, held in memory as uint8.

    train = load("idx", None, "train")                           # Fashion-MNIST as Debian ships it
    test = load("cifar10", Path("cifar-10-binary.tar.gz"), "test")
    mine = load("folder", Path("photos"), "train", size=96)

Every file counts as a stranger's: nothing is unpickled or extracted, sizes are checked before
memory is taken, and whatever is wrong raises DataError, one line that names the file.
"""

from __future__ import annotations

import gzip
import io
import logging
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.errors import TutelageError
from tutelage.core.images.decoder import read_image
from tutelage.core.images.files import (
    IMAGE_SUFFIXES,
    broken_line,
    class_folders,
    find_images,
    skipped_line,
)
from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import FormError, InputForm
from tutelage.core.images.picture_header import DEFLATE_RATIO
from tutelage.core.text import shown

_LOG = logging.getLogger(__name__)  # without a handler warnings go to standard error

KINDS = ("idx", "cifar10", "cifar100", "folder")
SPLITS = ("train", "test")
DEFAULT_IDX = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist

FASHION = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

MAX_BYTES = 1 << 32  # of the images of one split
MAX_ARCHIVE = 1 << 28  # of an unpacked CIFAR archive; the real ones have 176 and 162 MiB

TEST_NAMES = ("test", "val", "valid")
TEST_EVERY = 5  # a folder without train/ gives every fifth image of a class to the test split

MEAN, SCALE = 128.0, 1 / 128
"""(v - 128) / 128, unless a data set says otherwise: at fix point 7 that is v - 128 in int8, so
that all 256 levels enter the DPU exactly, none is rounded or clipped."""

BLACK, GREY = 0, 128  # pixel values that augmentation fills in
FOLDER_CROP = "center"  # of pictures that a size is given for
_COLOURS = {1: "grey", 3: "rgb"}  # by the number of channels


class DataError(TutelageError, ValueError):
    """A data set cannot be used; the text is one line that names the file."""


@dataclass(frozen=True)
class DataSet:
    """Labelled images.

    Attributes
    ----------
    images : uint8 (N, C, H, W); three channels are RGB
    labels : int64 (N,), each an index into `classes`
    classes : the classes' names
    form : how a picture becomes one of `images`, and that the network's input; when it is None
        pictures are not cropped, and the input is (v - 128) / 128
    files : where each image was read from; empty where it was not a file of its own
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    form: InputForm = None  # type: ignore[assignment]  # never None once it is made
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.form is None:
            object.__setattr__(self, "form", make_form(self.shape))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, count: int) -> DataSet:
        """The first `count` images, all when it is 0; views, nothing is copied."""
        if count < 0:
            raise ValueError(f"count is {count}; it must not be negative")
        return self.part(0, count or len(self))

    def part(self, start: int, stop: int) -> DataSet:
        """The images from `start` to `stop`, as views."""
        one = slice(start, stop)
        return replace(
            self, images=self.images[one], labels=self.labels[one], files=self.files[one]
        )

    def inputs(self, chosen: slice | Tensor = slice(None)) -> Tensor:
        """The network's inputs (N, C, H, W), float32 and channels_last, of chosen images."""
        return normalise(self.images[chosen], self.form)


def encode_png(image: Tensor) -> bytes:
    """A PNG file of one uint8 image (C, H, W), grey or in colours."""
    pixels = image.permute(1, 2, 0).numpy()[..., ::-1]  # OpenCV's colours are BGR
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()


def make_form(
    shape: tuple[int, int, int],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    crop: str = "none",
) -> InputForm:
    """The form of images (C, H, W).

    Parameters
    ----------
    mean, std : as torchvision has them, of pixels in 0..1; for each channel or one for all. The
        input is (v / 255 - mean) / std; without both it is (v - 128) / 128
    crop : "none" or "center"

    Raises
    ------
    FormError
        There are neither 1 nor C of them.
    """
    channels, height, width = shape
    if bool(mean) != bool(std):
        raise FormError("mean and std go together")
    means = [255 * value for value in mean] or [MEAN]
    scales = [1 / (255 * value) for value in std] or [SCALE]
    return InputForm(width, height, _COLOURS[channels], tuple(means), tuple(scales), crop)


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
    kind : one of KINDS
        idx, a directory with MNIST's four files, each plain or .gz; cifar10 and cifar100, the
        *binary* version as a directory or as the .tar.gz; folder, train/<class>/<image> and
        test/<class>/<image> (or val, valid), or <class>/<image>, of which every fifth is test.
    path : where it lies; None is Debian's Fashion-MNIST for idx, an error for the others
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
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    if size < 0:
        raise ValueError(f"size is {size}; it must not be negative")
    path = path or _default(kind)
    try:
        data = _load(kind, path, split, size)
    except OSError as error:  # reached where no more is known than that the system refused
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    if size and data.shape[1:] != (size, size):
        raise DataError(
            f"{path}: images are {_pixels(data.shape)}; size {size} resizes folders only"
        )
    try:
        crop = FOLDER_CROP if kind == "folder" and size else "none"
        return replace(data, form=make_form(data.shape, mean, std, crop))
    except FormError as error:
        raise DataError(f"{path}: {error}") from error


def _load(kind: str, path: Path, split: str, size: int) -> DataSet:
    if kind == "folder":
        return _load_folder(path, split, size)
    return _load_idx(path, split) if kind == "idx" else _load_cifar(CIFAR[kind], path, split)


def _default(kind: str) -> Path:
    if kind != "idx":
        raise DataError(f"{kind}: give the path of the data set")
    if not DEFAULT_IDX.is_dir():
        raise DataError(f"{DEFAULT_IDX} is absent: apt install dataset-fashion-mnist, or give path")
    return DEFAULT_IDX


def _pixels(shape: Sequence[int]) -> str:
    """Height and width, the last two of `shape`, for messages."""
    return f"{shape[-2]}x{shape[-1]}"


# ----------------------------------------------------------------------- idx: MNIST's format


def _load_idx(directory: Path, split: str) -> DataSet:
    prefix = {"train": "train", "test": "t10k"}
    image_file = _idx_file(directory, f"{prefix[split]}-images-idx3-ubyte")
    label_file = _idx_file(directory, f"{prefix[split]}-labels-idx1-ubyte")
    images, labels = _read_idx(image_file, 3), _read_idx(label_file, 1)
    if len(images) != len(labels):
        raise DataError(f"{label_file}: {len(labels)} labels for {len(images)} images")
    fashion = "fashion" in directory.absolute().name.lower()
    classes = FASHION if fashion else _numbers(int(labels.max()) + 1)
    _check_labels(labels, len(classes), label_file)
    return DataSet(images.unsqueeze(1), labels.long(), classes)


def _idx_file(directory: Path, name: str) -> Path:
    """The file of that name, or its .gz."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{directory}: holds neither {name} nor {name}.gz")


def _read_idx(path: Path, rank: int) -> Tensor:
    """The unsigned bytes of an IDX file (http://yann.lecun.com/exdb/mnist), shaped by its header.

    Raises
    ------
    DataError
        Another type or rank, no values, fewer or more values than the header says.
    """
    try:
        with _open(path) as stream:
            head = stream.read(4 + 4 * rank)
            if head[:4] != bytes((0, 0, 8, rank)):
                raise DataError(f"{path}: not an IDX file of unsigned bytes with {rank} dimensions")
            if len(head) < 4 + 4 * rank:
                raise DataError(f"{path}: cut short in its header")
            shape = struct.unpack_from(f">{rank}I", head, 4)
            size = _product(shape)
            _check_size(path, shape, size)
            values = bytearray(stream.read(size))
            if len(values) < size:
                raise DataError(f"{path}: cut short: {len(values)} of {size} values")
            if stream.read(1):
                raise DataError(f"{path}: more bytes follow the {size} values")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from error
    return torch.frombuffer(values, dtype=torch.uint8).view(shape)


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path)  # type: ignore[return-value]  # reads like one
    return path.open("rb")


def _product(shape: Sequence[int]) -> int:
    """The number of elements; Python's integers, since a header may name more than 64 bits hold."""
    count = 1
    for side in shape:
        count *= side
    return count


def _check_size(path: Path, shape: Sequence[int], size: int) -> None:
    """Raise DataError before `size` bytes are taken that the file cannot contain."""
    if not size:
        raise DataError(f"{path}: is empty, its header says {shape}")
    if size > MAX_BYTES:
        raise DataError(f"{path}: {size} bytes are too many, {MAX_BYTES} are the limit")
    possible = path.stat().st_size * (DEFLATE_RATIO if path.suffix == ".gz" else 1)
    if size > possible:
        raise DataError(f"{path}: cut short: its header promises {size} values")


def _numbers(count: int) -> tuple[str, ...]:
    """Class names where none are known."""
    return tuple(str(number) for number in range(count))


def _check_labels(labels: Tensor, classes: int, path: Path | str) -> None:
    highest = int(labels.max())
    if highest >= classes:
        raise DataError(f"{path}: label {highest} is out of range, there are {classes} classes")


# ------------------------------------------------------- CIFAR, https://www.cs.toronto.edu/~kriz


@dataclass(frozen=True)
class _Cifar:
    """A binary version: a record is `label_bytes`, the last of which counts, then 3x32x32."""

    directory: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int
    classes: int


CIFAR = {
    "cifar10": _Cifar(
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        ("test_batch.bin",),
        "batches.meta.txt",
        1,
        10,
    ),
    "cifar100": _Cifar(
        "cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt", 2, 100
    ),
}
CIFAR_SHAPE = (3, 32, 32)
CIFAR_MAX_RECORDS = 50_000  # in one file
CIFAR_MAX_FILE = CIFAR_MAX_RECORDS * (2 + 3 * 32 * 32)


def _load_cifar(version: _Cifar, path: Path, split: str) -> DataSet:
    """The files of one split, from a directory or an archive; all of them must be there."""
    wanted = version.train if split == "train" else version.test
    if path.is_dir():
        files = _cifar_directory(path, version.directory, (*wanted, version.names))
    else:
        files = _cifar_archive(path, (*wanted, version.names))
    parts = []
    for name in wanted:
        if name not in files:
            raise DataError(
                f"{path}: holds no {name}; the binary version is wanted, not the Python one"
            )
        parts.append(_cifar_records(version, files[name], f"{path}: {name}"))
    classes = _numbers(version.classes)
    if version.names in files:
        classes = _cifar_names(files[version.names], version.classes, f"{path}: {version.names}")
    records = np.concatenate(parts)
    images = np.ascontiguousarray(records[:, version.label_bytes :]).reshape(-1, *CIFAR_SHAPE)
    labels = records[:, version.label_bytes - 1].astype(np.int64)
    return DataSet(torch.from_numpy(images), torch.from_numpy(labels), classes)


def _cifar_directory(path: Path, inner: str, names: Collection[str]) -> dict[str, bytes]:
    """The contents of those files that `path`, or `inner` in it, has."""
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
    """The contents of the regular members of a .tar.gz that have those base names.

    It is unpacked in memory as a whole: that bounds all that tarfile, which believes the sizes
    in its headers, can be made to read.
    """
    try:
        with gzip.open(path) as stream:
            data = stream.read(MAX_ARCHIVE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as .tar.gz: {_reason(error)}") from error
    if len(data) > MAX_ARCHIVE:
        raise DataError(f"{path}: unpacks to more than {MAX_ARCHIVE} bytes, which CIFAR does not")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in names or not member.isreg() or member.issparse():
                    continue
                if name in files:
                    raise DataError(f"{path}: holds {name} twice")
                _check_cifar_size(member.size, f"{path}: {name}")
                content = archive.extractfile(member)
                files[name] = content.read() if content else b""
    except DataError:
        raise
    # Beside its own errors tarfile lets through what malformed numbers, names and chains of
    # headers cause in it.
    except (tarfile.TarError, OSError, ValueError, ArithmeticError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable tar archive: {_reason(error)}") from error
    return files


def _reason(error: Exception) -> str:
    """What an exception says, in one line and without the file that the message names anyhow."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _check_cifar_size(size: int, where: str) -> None:
    if size > CIFAR_MAX_FILE:
        raise DataError(f"{where}: {size} bytes are more than a CIFAR file has")


def _cifar_records(version: _Cifar, data: bytes, where: str) -> NDArray[np.uint8]:
    """The records (N, label bytes + 3072) of one file."""
    length = version.label_bytes + _product(CIFAR_SHAPE)
    if not data or len(data) % length:
        raise DataError(
            f"{where}: {len(data)} bytes are not whole records of {length}: cut short, or no CIFAR"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    _check_labels(torch.tensor(records[:, version.label_bytes - 1].max()), version.classes, where)
    return records


def _cifar_names(data: bytes, count: int, where: str) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in data.decode().splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not a text file") from error
    if len(names) != count:
        raise DataError(f"{where}: {len(names)} class names instead of {count}")
    return names


# --------------------------------------------------------------------- folders of image files


def _load_folder(path: Path, split: str, size: int) -> DataSet:
    if not path.is_dir():
        raise DataError(f"{path}: no such directory")
    classes, files, skipped = _folder_files(path, split)
    if not any(files):
        raise DataError(f"{path}: holds no {split} images ({', '.join(IMAGE_SUFFIXES)})")
    images, labels, paths = _read_images(files, size)
    if line := skipped_line(skipped):
        _LOG.warning("%s", shown(f"{path}: {line}"))
    return DataSet(torch.from_numpy(images), torch.tensor(labels), classes, files=tuple(paths))


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
            f"{path.parent.parent}: {count} images of {_pixels(image.shape[:2])} are more"
            f" than {MAX_BYTES} bytes; give a smaller size"
        )
    height, width, channels = image.shape
    return np.empty((count, channels, height, width), np.uint8)


def _check_shape(image: NDArray[np.uint8], path: Path, shape: Sequence[int], first: Path) -> None:
    if image.shape[:2] != tuple(shape):
        raise DataError(
            f"{path}: is {_pixels(image.shape[:2])} and {first} is"
            f" {_pixels(shape)}; give size to make them equal"
        )


def read_bgr(path: Path) -> NDArray[np.uint8]:
    """One image of a file, BGR (H, W, 3), upright.

    Raises
    ------
    DataError
        It cannot be read, is too large (`tutelage.core.images.decoder`), cut off or no image.
    """
    try:
        return np.asarray(read_image(path), np.uint8)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """One RGB image (H, W, 3), with `size` cropped in the centre and resized to that side."""
    bgr = read_bgr(path)
    if size:
        bgr = ImageFitter(InputForm(size, size, "bgr", crop=FOLDER_CROP))(bgr)
    return np.asarray(bgr[..., ::-1], np.uint8)


# ------------------------------------------------------------------------- into the network


def normalise(images: Tensor, form: InputForm) -> Tensor:
    """Return (v - mean) * scale, float32 and channels_last, of uint8 (N, C, H, W).

    Each value is that of `tutelage.core.images.input_form.float_table`, to the bit.
    """
    # Written into a tensor laid out beforehand: .contiguous() leaves one channel in NCHW strides.
    out = torch.empty(
        images.shape,
        dtype=torch.float32,
        device=images.device,
        memory_format=torch.channels_last,
    )
    mean, scale = (
        torch.tensor(values, dtype=torch.float32, device=images.device).view(-1, 1, 1)
        for values in (form.mean, form.scale)
    )
    return out.copy_(images).sub_(mean).mul_(scale)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, in pixel values.

    The parameters are drawn apart from being applied: processes that each hold a slice of a
    global batch draw for the whole batch and apply their slice of the parameters, so that the
    images do not depend on how many processes there are.

    Attributes
    ----------
    flip : mirror half of the images left to right
    shift : move by up to so many pixels in each direction; what enters is black
    cutout : side in pixels of a square set to the middle grey, 128; its centre is anywhere in
        the image and the borders clip it (DeVries and Taylor, arXiv:1708.04552)
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("shift", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")

    def draw(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random parameters of `count` images, each (count, ...); empty when nothing is on.

        The number of draws depends on `count` and the settings alone.

        Returns
        -------
        dict
            "flip" bool (count,); "shift" int64 (count, 2), rows and columns cut from the top and
            left of the image padded by `shift`; "cutout" float32 (count, 2) in [0, 1), the
            square's centre as shares of height and width.
        """
        drawn = {}
        if self.flip:
            drawn["flip"] = torch.rand(count, generator=generator) < 0.5
        if self.shift:
            drawn["shift"] = torch.randint(2 * self.shift + 1, (count, 2), generator=generator)
        if self.cutout:
            drawn["cutout"] = torch.rand(count, 2, generator=generator)
        return drawn

    def apply(self, images: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Return uint8 images (N, C, H, W) changed by parameters of draw(), channels_last.

        `images` are left as they are; with nothing to do they may be what is returned.
        apply(x[a:b], {k: v[a:b]}) equals apply(x, drawn)[a:b].

        Raises
        ------
        ValueError
            The parameters are of other settings, or of another number of images.
        """
        wanted = {name for name in ("flip", "shift", "cutout") if getattr(self, name)}
        if drawn.keys() != wanted or any(len(v) != len(images) for v in drawn.values()):
            raise ValueError(f"parameters drawn for other settings or not for {len(images)} images")
        drawn = {name: values.to(images.device) for name, values in drawn.items()}
        images = images.contiguous(memory_format=torch.channels_last)
        if self.flip or self.shift:
            images = _move(images, self.shift, drawn.get("flip"), drawn.get("shift"))
        if self.cutout:
            # Not masked_fill(), which changes the memory format.
            images = images.clone().masked_fill_(
                _square(images, self.cutout, drawn["cutout"]), GREY
            )
        return images


def _move(images: Tensor, most: int, flip: Tensor | None, shift: Tensor | None) -> Tensor:
    """Shift, then mirror each image of (N, C, H, W), in one gather of whole pixels.

    One flat index per pixel: measured faster than advanced indexing, two gathers or grid_sample.
    """
    count, channels, height, width = images.shape
    device = images.device
    # In NHWC, where a pixel's channels lie side by side.
    padded = F.pad(images.permute(0, 2, 3, 1), [0, 0, most, most, most, most], value=BLACK)
    rows = torch.arange(height, device=device).view(1, -1)
    columns = torch.arange(width, device=device).view(1, -1)
    if flip is not None:
        columns = torch.where(flip.view(-1, 1), width - 1 - columns, columns)
    if shift is not None:
        rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
    numbers = torch.arange(count, device=device).view(-1, 1)
    starts = (numbers * (height + 2 * most) + rows) * (width + 2 * most)
    index = (starts.unsqueeze(2) + columns.unsqueeze(1)).flatten()
    # index_select is twice as fast on a vector as on a matrix of one column.
    pixels = padded.reshape(-1, channels) if channels > 1 else padded.reshape(-1)
    moved = pixels.index_select(0, index).view(count, height, width, channels)
    return moved.permute(0, 3, 1, 2)


def _square(images: Tensor, side: int, centre: Tensor) -> Tensor:
    """The mask (N, 1, H, W) of a square in each image, around `centre` (N, 2) in [0, 1)."""
    inside = []
    for axis, length in enumerate(images.shape[2:]):
        start = (centre[:, axis : axis + 1] * length).long() - side // 2
        positions = torch.arange(length, device=images.device)
        inside.append((positions >= start) & (positions < start + side))
    rows, columns = inside
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The epoch's random order of range(count) in full batches, int64; the rest is left out.

    PyTorch's CPU generator uses only the low 32 bits of its seed. Fibonacci hashing (Knuth, The
    Art of Computer Programming 3, 6.4) spreads the seeds over them: no two seeds less than 2**16
    apart share an order within their first 11547 epochs.
    """
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + epoch) & 0xFFFFFFFF)
    full = count // batch_size
    order = torch.randperm(count, generator=generator)[: full * batch_size]
    return list(order.view(full, batch_size))
