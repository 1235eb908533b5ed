"""Data sets: real files of every format, broken ones, and the laws of augmentation."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.core.images.input_form import (  # noqa: E402
    InputForm,
    best_fix_point,
    float_table,
)
from tutelage.core.images.preprocessor import Preprocessor  # noqa: E402
from tutelage.host.train.data import DataError, DataSet, load  # noqa: E402
from tutelage.host.train.data.augmentation import Augmentation  # noqa: E402
from tutelage.host.train.data.batching import batches  # noqa: E402
from tutelage.host.train.data.data_set import make_form, normalise  # noqa: E402
from tutelage.host.train.data.formats import cifar, idx  # noqa: E402
from tutelage.host.train.data.formats.registry import format_names  # noqa: E402
from tutelage.host.train.data.image_io import read_bgr  # noqa: E402

# Every example of a property test overwrites the same files.
FILES = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


CIFAR = {version.name: version for version in (cifar.CIFAR10, cifar.CIFAR100)}


def _images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def _labels(count: int, classes: int) -> np.ndarray:
    return (np.arange(count) % classes).astype(np.uint8)


def _refused(
    message: str, kind: str, path: Path, split: str = "train", size: int = 0, **form: Any
) -> None:
    """Verify that load() raises DataError, in one line that names a path below `path`."""
    with pytest.raises(DataError, match=message) as caught:
        load(kind, path, split, size, **form)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- idx


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def _write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, gz: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for split in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = _idx(array)
            name = f"{split}-{kind}-ubyte" + (".gz" if gz else "")
            (folder / name).write_bytes(gzip.compress(content, 1) if gz else content)


@FILES
@given(
    count=st.integers(1, 20), height=st.integers(1, 9), width=st.integers(1, 9), gz=st.booleans()
)
def test_idx_round_trip(tmp_path: Path, count: int, height: int, width: int, gz: bool) -> None:
    folder = tmp_path / f"mnist-{gz}"
    images, labels = _images(count, height, width), _labels(count, 10)
    _write_idx(folder, images, labels, gz)
    for split in ("train", "test"):
        read = load("idx", folder, split)
        assert read.images.dtype == torch.uint8 and read.labels.dtype == torch.int64
        assert np.array_equal(read.images.numpy(), images[:, None])
        assert np.array_equal(read.labels.numpy(), labels)
        assert read.classes == tuple("0123456789"[: min(count, 10)])
        assert len(read) == count and read.shape == (1, height, width)


def test_idx_classes_of_fashion_mnist_go_by_the_directory(tmp_path: Path) -> None:
    _write_idx(tmp_path / "Fashion-MNIST", _images(3, 4, 4), _labels(3, 10))
    assert load("idx", tmp_path / "Fashion-MNIST", "train").classes == idx.FASHION


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, b"", "not an IDX file"),
        (IMAGES, b"\x00\x00\x0d\x03" + bytes(12), "not an IDX file"),  # float
        (IMAGES, _idx(_images(12, 4)), "not an IDX file"),  # two dimensions
        (IMAGES, b"\x00\x00\x08\x03" + bytes(5), "header"),
        (IMAGES, b"\x00\x00\x08\x03" + bytes(12), "empty"),
        (IMAGES, _idx(_images(12, 4, 4))[:-1], "truncated"),
        (IMAGES, _idx(_images(12, 4, 4)) + b"\x00", "more bytes"),
        (IMAGES, b"\x00\x00\x08\x03" + b"\xff" * 12, "more than the limit"),
        (IMAGES, b"\x00\x00\x08\x03" + struct.pack(">3I", 60000, 28, 28), "truncated"),
        (IMAGES, _idx(_images(11, 4, 4)), "12 labels for 11 images"),
        (LABELS, _idx(_labels(13, 10)), "13 labels for 12 images"),
        (LABELS, _idx(np.full(12, 10, np.uint8)), "label 10 is out of range"),
    ],
)
@pytest.mark.parametrize("gz", [False, True])
def test_broken_idx(tmp_path: Path, name: str, content: bytes, message: str, gz: bool) -> None:
    folder = tmp_path / "fashion"
    _write_idx(folder, _images(12, 4, 4), _labels(12, 10), gz)
    path = folder / (name + (".gz" if gz else ""))
    path.write_bytes(gzip.compress(content) if gz else content)
    _refused(message, "idx", folder)


@pytest.mark.parametrize("damage", ["plain", "half", "trailing", "bits"])
def test_broken_gzip(tmp_path: Path, damage: str) -> None:
    _write_idx(tmp_path, _images(12, 4, 4), _labels(12, 10), gz=True)
    path = tmp_path / f"{IMAGES}.gz"
    content = path.read_bytes()
    flipped = content[:40] + bytes(255 - byte for byte in content[40:60]) + content[60:]
    path.write_bytes(
        {
            "plain": gzip.decompress(content),
            "half": content[: len(content) // 2],
            "trailing": content + b"garbage",
            "bits": flipped,
        }[damage]
    )
    _refused("cannot be read", "idx", tmp_path)


def test_idx_files_that_are_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refused("has neither", "idx", tmp_path / "nowhere")
    monkeypatch.setattr(idx, "DEFAULT_IDX", tmp_path / "fashion-mnist")
    with pytest.raises(DataError, match="apt install dataset-fashion-mnist, or give another path"):
        load("idx", None, "train")


def test_real_fashion_mnist() -> None:
    if not idx.DEFAULT_IDX.is_dir():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    train, test = load("idx", None, "train"), load("idx", None, "test")
    assert (len(train), len(test), train.shape) == (60000, 10000, (1, 28, 28))
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes == idx.FASHION and train.classes[train.labels[0]] == "Ankle boot"


# --------------------------------------------------------------------------------- cifar


def _cifar_files(kind: str, count: int) -> dict[str, bytes]:
    """The binary version's files with `count` records each; every batch has different images."""
    version = CIFAR[kind]
    files = {
        version.names: "".join(f"class {i}\n" for i in range(version.classes)).encode() + b"\n"
    }
    for seed, name in enumerate((*version.files["train"], *version.files["test"])):
        records = np.zeros((count, version.label_bytes + 3072), np.uint8)
        records[:, 0] = 7  # CIFAR-100's coarse label, which is ignored
        records[:, version.label_bytes - 1] = _labels(count, version.classes)
        records[:, version.label_bytes :] = _images(count, 3072, seed=seed)
        files[name] = records.tobytes()
    return files


def _tar(path: Path, files: dict[str, bytes], directory: str) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{directory}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _write_cifar(kind: str, form: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    """Write the files as an archive, a directory, or a directory in a directory."""
    directory = CIFAR[kind].directory
    if form == "archive":
        _tar(tmp_path / "cifar.tar.gz", files, directory)
        return tmp_path / "cifar.tar.gz"
    (tmp_path / directory).mkdir()
    for name, content in files.items():
        (tmp_path / directory / name).write_bytes(content)
    return tmp_path / directory if form == "directory" else tmp_path


@pytest.mark.parametrize("form", ["archive", "directory", "outer"])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_cifar(tmp_path: Path, kind: str, form: str) -> None:
    path = _write_cifar(kind, form, tmp_path, _cifar_files(kind, 4))
    version = CIFAR[kind]
    for split, batches_read in (("train", range(len(version.files["train"]))), ("test", [-1])):
        seeds = [seed % (len(version.files["train"]) + 1) for seed in batches_read]
        read = load(kind, path, split)
        expected = np.concatenate([_images(4, 3072, seed=seed) for seed in seeds])
        assert np.array_equal(read.images.numpy().reshape(-1, 3072), expected)
        assert read.shape == (3, 32, 32)
        assert read.labels.tolist() == list(range(4)) * len(seeds)
        assert read.classes == tuple(f"class {i}" for i in range(version.classes))


def test_cifar_without_names(tmp_path: Path) -> None:
    files = _cifar_files("cifar100", 1)
    del files["fine_label_names.txt"]
    path = _write_cifar("cifar100", "archive", tmp_path, files)
    assert load("cifar100", path, "test").classes[-1] == "99"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3.bin", None, "has no data_batch_3.bin"),
        ("data_batch_3.bin", b"", "0 bytes are not whole records"),
        ("data_batch_3.bin", bytes(3072), "3072 bytes are not whole records"),
        ("data_batch_3.bin", bytes(3074), "3074 bytes are not whole records"),
        ("data_batch_3.bin", b"\x0a" + bytes(3072), "label 10 is out of range"),
        ("batches.meta.txt", b"cat\ndog\n", "2 class names instead of 10"),
        ("batches.meta.txt", b"\xff\xfe", "not a text file"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "directory"])
def test_broken_cifar(
    tmp_path: Path, form: str, name: str, content: bytes | None, message: str
) -> None:
    files = _cifar_files("cifar10", 1)
    del files[name]
    if content is not None:
        files[name] = content
    _refused(message, "cifar10", _write_cifar("cifar10", form, tmp_path, files))


@pytest.mark.parametrize("form", ["archive", "directory"])
def test_cifar_larger_than_it_can_be(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write_cifar("cifar10", form, tmp_path, _cifar_files("cifar10", 2))
    monkeypatch.setattr(cifar, "CIFAR_MAX_FILE", 3073)
    _refused("of a CIFAR file", "cifar10", path)


def test_cifar_archive_is_read_in_memory_and_only_regular_files(tmp_path: Path) -> None:
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("../../test.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    _refused("has no test.bin", "cifar100", path, "test")
    content = _cifar_files("cifar100", 1)["test.bin"]
    _tar(path, {"test.bin": content, "../../test.bin": content}, "x")
    _refused("twice", "cifar100", path, "test")
    assert sorted(tmp_path.iterdir()) == [path]


def test_cifar_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    monkeypatch.setattr(cifar, "MAX_ARCHIVE", 1 << 19)
    _refused("unpacks to more than", "cifar10", path)


def test_cifar_python_version_is_not_unpickled(tmp_path: Path) -> None:
    _tar(tmp_path / "cifar-10-python.tar.gz", {"data_batch_1": b"cos\nsystem\n"}, "x")
    _refused("binary version", "cifar10", tmp_path / "cifar-10-python.tar.gz")


def test_cifar_that_is_absent_or_no_archive(tmp_path: Path) -> None:
    _refused("No such file", "cifar10", tmp_path / "nothing.tar.gz")
    (tmp_path / "text.tar.gz").write_text("not found")
    _refused("cannot be read as .tar.gz", "cifar10", tmp_path / "text.tar.gz")
    with pytest.raises(DataError, match="cifar10: give the path"):
        load("cifar10", None, "train")


@FILES
@given(st.data())
def test_damaged_archive_is_refused_or_read(tmp_path: Path, draw: st.DataObject) -> None:
    """Any change of bytes in tar headers raises only DataError."""
    path = tmp_path / "cifar.tar.gz"
    _tar(path, {"test.bin": bytes(3074)}, "cifar-100-binary")
    content = bytearray(gzip.decompress(path.read_bytes()))
    for _ in range(draw.draw(st.integers(1, 4))):
        content[draw.draw(st.integers(0, 511))] = draw.draw(st.integers(0, 255))
    fields = content[:148] + b" " * 8 + content[156:512]
    content[148:156] = b"%06o\0 " % sum(fields)  # the checksum of the changed bytes
    path.write_bytes(gzip.compress(content[: draw.draw(st.integers(0, len(content)))], 1))
    try:
        assert len(load("cifar100", path, "test")) == 1
    except DataError as error:
        assert str(path) in str(error)


# -------------------------------------------------------------------------------- folder


def _write_image(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))


@FILES
@given(height=st.integers(1, 12), width=st.integers(1, 12), suffix=st.sampled_from(["png", "BMP"]))
def test_folder_round_trip(tmp_path: Path, height: int, width: int, suffix: str) -> None:
    root = tmp_path / suffix
    images = _images(4, height, width, 3)
    for i, name in enumerate(("train/cat/a", "train/cat/b", "train/dog/c", "test/dog/d")):
        _write_image(root / f"{name}.{suffix}", images[i])
    train, test = load("folder", root, "train"), load("folder", root, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1] and test.labels.tolist() == [1]
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), images[:3])
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), images[3:])


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_folder_of_lossy_files_is_rgb(tmp_path: Path, suffix: str) -> None:
    _write_image(tmp_path / f"train/x/a.{suffix}", np.full((16, 16, 3), (250, 10, 100), np.uint8))
    read = load("folder", tmp_path, "train")
    assert read.images.float().mean((0, 2, 3)).tolist() == pytest.approx([250, 10, 100], abs=6)


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_folder_test_split_has_three_names(tmp_path: Path, name: str) -> None:
    for folder in ("train", name):
        _write_image(tmp_path / folder / "x" / "a.png", _images(1, 4, 4, 3)[0])
    assert len(load("folder", tmp_path, "test")) == 1


def test_folder_without_train_gives_every_fifth_image_to_test(tmp_path: Path) -> None:
    images = _images(22, 4, 4, 3)
    for i, image in enumerate(images):
        _write_image(tmp_path / ("ab"[i // 11]) / f"{i:02}.png", image)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.txt").write_text("not a class")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    train, test = load("folder", tmp_path, "train"), load("folder", tmp_path, "test")
    chosen = [4, 9, 15, 20]
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), images[chosen])
    assert test.labels.tolist() == [0, 0, 1, 1]
    rest = np.delete(images, chosen, 0)
    assert np.array_equal(train.images.permute(0, 2, 3, 1).numpy(), rest)
    assert train.classes == test.classes == ("a", "b")


@pytest.mark.parametrize(("height", "width"), [(10, 30), (30, 10), (4, 4), (3, 400)])
def test_folder_resizes_and_crops_the_centre(tmp_path: Path, height: int, width: int) -> None:
    """The first third is red, the middle green, the last blue: green remains."""
    long = np.zeros((max(height, width), 3), np.uint8)
    third = (len(long) - min(height, width)) // 2
    long[:third, 0] = long[third : len(long) - third, 1] = long[len(long) - third :, 2] = 255
    image = np.broadcast_to(long[:, None] if height > width else long[None], (height, width, 3))
    _write_image(tmp_path / "train/x/a.png", image)
    read = load("folder", tmp_path, "train", size=8)
    assert read.shape == (3, 8, 8)
    assert read.images.float().mean((0, 2, 3)).tolist() == [0, 255, 0]


def test_folder_shrinks_by_area(tmp_path: Path) -> None:
    image = _images(1, 8, 8, 3)[0]
    _write_image(tmp_path / "train/x/a.png", image)
    mean = image.reshape(4, 2, 4, 2, 3).mean((1, 3))
    read = load("folder", tmp_path, "train", size=4).images[0].permute(1, 2, 0).numpy()
    assert np.abs(read - mean).max() <= 0.5


def test_folder_of_different_sizes_asks_for_size(tmp_path: Path) -> None:
    _write_image(tmp_path / "train/x/a.png", _images(1, 4, 4, 3)[0])
    _write_image(tmp_path / "train/x/b.png", _images(1, 4, 5, 3)[0])
    _refused("b.png: is 4x5, the first picture is 4x4: give size", "folder", tmp_path)
    assert load("folder", tmp_path, "train", size=4).shape == (3, 4, 4)


def test_folder_with_a_broken_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out and reported; the others keep their labels."""
    images = _images(3, 4, 4, 3)
    _write_image(tmp_path / "train/x/a.png", images[0])
    _write_image(tmp_path / "train/x/c.png", images[1])
    _write_image(tmp_path / "train/y/a.png", images[2])
    bad = tmp_path / "train/x/b.png"

    def left_out(reason: str) -> None:
        caplog.clear()
        read = load("folder", tmp_path, "train")
        assert np.array_equal(read.images.permute(0, 2, 3, 1).numpy(), images)
        assert read.labels.tolist() == [0, 0, 1]
        (line,) = caplog.messages
        assert line == f"left out 1 broken image: {bad}: {reason}"

    bad.write_bytes(b"")
    left_out("file is empty")
    bad.write_bytes(b"<html>")
    left_out("not an image OpenCV can read")
    bad.write_bytes((tmp_path / "train/x/a.png").read_bytes()[:20])
    left_out("image file is cut off")
    bad.unlink()
    bad.symlink_to(tmp_path / "gone.png")
    left_out("No such file or directory")


def test_folder_names_few_of_many_broken_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write_image(tmp_path / "train/x/a.png", _images(1, 4, 4, 3)[0])
    for number in range(30):
        (tmp_path / f"train/x/b{number:02}.png").write_bytes(b"")
    assert len(load("folder", tmp_path, "train")) == 1
    (line,) = caplog.messages
    assert line.startswith("left out 30 broken images: ") and line.endswith("; and 25 more")
    assert line.count("file is empty") == 5


def test_folder_with_a_class_of_broken_images(tmp_path: Path) -> None:
    _write_image(tmp_path / "train/x/a.png", _images(1, 4, 4, 3)[0])
    for name in ("a.png", "b.png"):
        (tmp_path / "train/y").mkdir(exist_ok=True)
        (tmp_path / "train/y" / name).write_bytes(b"")
    _refused(r"b.png: file is empty; no image of its class can be read \(2 tried\)", "folder",
             tmp_path)  # fmt: skip


def test_folder_of_a_telephone_and_a_mac(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sub-folders belong to their class; skipped files are counted once for both splits."""
    images = _images(10, 4, 4, 3)
    for number, image in enumerate(images):
        name = f"{'ab'[number % 2]}/{'more/' * (number > 5)}{number}.png"
        _write_image(tmp_path / name, image)
    _write_image(tmp_path / "a/.ipynb_checkpoints/0-checkpoint.png", images[0])
    _write_image(tmp_path / "__MACOSX/a/0.png", images[0])
    _write_image(tmp_path / "loose.png", images[0])
    (tmp_path / "a/._0.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    for name in ("IMG_1.HEIC", "IMG_2.heic", "notes.txt", ".DS_Store"):
        (tmp_path / "b" / name).write_bytes(b"x")
    (tmp_path / "b/again").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "a")
    train, test = load("folder", tmp_path, "train"), load("folder", tmp_path, "test")
    assert train.classes == ("a", "b") and train.labels.tolist() == [0] * 4 + [1] * 4
    assert test.labels.tolist() == [0, 1]
    assert caplog.messages == [
        f"{tmp_path}: skipped 7 files: 2 .heic (not read; convert to JPEG), "
        "2 behind a link to a folder, 1 .txt, 1 hidden, 1 outside of the class directories"
    ]


def test_broken_folders(tmp_path: Path) -> None:
    _refused("no such directory", "folder", tmp_path / "nowhere")
    _refused("no class directories", "folder", tmp_path)
    (tmp_path / "x").mkdir()
    _refused("x: has no images", "folder", tmp_path)
    _write_image(tmp_path / "x" / "a.png", _images(1, 4, 4, 3)[0])
    _refused("one image of each class is too few", "folder", tmp_path, "test")
    _write_image(tmp_path / "test/x/a.png", _images(1, 4, 4, 3)[0])
    _refused("has test but no train", "folder", tmp_path, "test")
    _write_image(tmp_path / "train/y/a.png", _images(1, 4, 4, 3)[0])
    _refused("has no class", "folder", tmp_path, "test")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir(mode=0)
    _refused("Permission denied", "folder", tmp_path)


# ----------------------------------------------------------------------------- every kind


def test_arguments_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind 'imagenet' is not one of cifar10"):
        load("imagenet", tmp_path, "train")
    with pytest.raises(ValueError, match="split 'val'"):
        load("idx", tmp_path, "val")
    with pytest.raises(ValueError, match="size is -1"):
        load("folder", tmp_path, "train", -1)
    _write_idx(tmp_path, _images(3, 4, 4), _labels(3, 10))
    assert load("idx", tmp_path, "train", 4).shape == (1, 4, 4)
    _refused("images are 4x4; size 8x8 resizes folders and shards only", "idx", tmp_path, size=8)


def test_a_part_is_a_view() -> None:
    pixels = torch.arange(48).to(torch.uint8).view(3, 1, 4, 4)
    whole = DataSet(pixels, torch.tensor([2, 0, 1]), ("a",) * 3)
    two = whole.take(2)
    assert len(two) == 2 and two.labels.tolist() == [2, 0] and two.classes == whole.classes
    assert two.images.data_ptr() == whole.images.data_ptr()
    assert len(whole.take(0)) == len(whole.take(9)) == 3
    with pytest.raises(ValueError, match="negative"):
        whole.take(-1)


def test_a_limit_of_sorted_images_takes_all_classes() -> None:
    pixels = torch.arange(12).to(torch.uint8).view(12, 1, 1, 1)
    whole = DataSet(pixels, torch.arange(12) // 4, ("a", "b", "c"))
    assert whole.take(6).images.flatten().tolist() == [0, 2, 4, 6, 8, 10]
    assert whole.take(6).labels.tolist() == [0, 0, 1, 1, 2, 2]


def _levels(channels: int) -> DataSet:
    """Two images with all pixel values in each channel."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, channels, 1, 1)
    return DataSet(images, torch.zeros(2, dtype=torch.int64), ("a",))


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_exact_at_fix_point_7(channels: int) -> None:
    levels = _levels(channels)
    images, x = levels.images, levels.inputs()
    assert x.dtype == torch.float32 and x.shape == images.shape
    assert x.stride() == (256 * channels, 1, 16 * channels, channels)
    assert torch.equal(x * 2**7, images.to(torch.float32) - 128)


@settings(deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
@example(3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
def test_normalise_is_the_table_of_the_form(
    channels: int, mean: list[float], std: list[float]
) -> None:
    levels = _levels(channels)
    mean, std = mean[:channels], std[:channels]
    form = make_form(levels.shape, mean, std)
    found = normalise(levels.images, form)[0]
    assert np.array_equal(found.reshape(channels, 256).T.numpy(), float_table(form))
    torchvisions = (levels.images[0].double() / 255).permute(1, 2, 0) - torch.tensor(mean)
    wanted = (torchvisions / torch.tensor(std)).permute(2, 0, 1).float()
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_form_belongs_to_its_data_set(tmp_path: Path) -> None:
    _write_idx(tmp_path, _images(3, 4, 4), _labels(3, 10))
    assert load("idx", tmp_path, "test").form == InputForm(4, 4, "grey", (128.0,), (1 / 128,))
    found = load("idx", tmp_path, "test", mean=[0.5], std=[0.25]).form
    assert found == InputForm(4, 4, "grey", (127.5,), (1 / 63.75,))
    _refused("mean has 3 numbers for 1 channel", "idx", tmp_path, mean=[0.5] * 3, std=[1.0])
    _refused("mean and std go together", "idx", tmp_path, mean=[0.5])


# --------------------------------------------------------------------------- augmentation


SETTINGS = st.builds(
    Augmentation, flip=st.booleans(), shift=st.integers(0, 9), cutout=st.integers(0, 12)
)


def _reference(
    image: np.ndarray, settings: Augmentation, drawn: dict[str, np.ndarray]
) -> np.ndarray:
    """One image (C, H, W), augmented step by step."""
    _, height, width = image.shape
    if settings.shift:
        most, (top, left) = settings.shift, drawn["shift"]
        padded = np.pad(image, [(0, 0), (most, most), (most, most)], constant_values=0)
        image = padded[:, top : top + height, left : left + width]
    if settings.flip and drawn["flip"]:
        image = image[..., ::-1]
    image = image.copy()
    if settings.cutout:
        y, x = (np.array([height, width], np.float32) * drawn["cutout"]).astype(
            int
        ) - settings.cutout // 2
        image[
            :, max(y, 0) : max(y + settings.cutout, 0), max(x, 0) : max(x + settings.cutout, 0)
        ] = 128
    return image


@settings(deadline=None)
@given(
    augmentation=SETTINGS,
    count=st.integers(1, 6),
    channels=st.sampled_from([1, 2, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    cut=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
@example(Augmentation(True, 2, 3), 4, 3, 8, 6, (1, 3))
def test_augmentation_of_a_slice_is_the_slice_of_the_augmentation(
    augmentation: Augmentation,
    count: int,
    channels: int,
    height: int,
    width: int,
    cut: tuple[Any, ...],
) -> None:
    pixels = torch.from_numpy(_images(count, channels, height, width))
    images = torch.empty_like(pixels, memory_format=torch.channels_last).copy_(pixels)
    before = images.clone()
    drawn = augmentation.draw(count, torch.Generator().manual_seed(count))
    whole = augmentation.apply(images, drawn)
    assert torch.equal(images, before)
    assert whole.shape == images.shape and whole.stride() == images.stride()
    for i in range(count):
        one = {name: values[i].numpy() for name, values in drawn.items()}
        assert np.array_equal(whole[i].numpy(), _reference(images[i].numpy(), augmentation, one))
    a, b = min(cut), max(cut)
    part = augmentation.apply(images[a:b], {name: values[a:b] for name, values in drawn.items()})
    assert torch.equal(part, whole[a:b])
    assert part.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_takes_other_memory_formats() -> None:
    images = torch.from_numpy(_images(4, 3, 8, 8))
    augmentation = Augmentation(flip=True, shift=2, cutout=3)
    drawn = augmentation.draw(4, torch.Generator().manual_seed(0))
    planar = augmentation.apply(images.contiguous(), drawn)
    assert torch.equal(planar, augmentation.apply(images, drawn))
    assert planar.is_contiguous(memory_format=torch.channels_last)


def test_draw_depends_on_the_generator_alone() -> None:
    augmentation = Augmentation(flip=True, shift=2, cutout=4)
    first, again = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    one, two = augmentation.draw(2000, first), augmentation.draw(2000, again)
    assert all(torch.equal(one[name], two[name]) for name in ("flip", "shift", "cutout"))
    assert torch.equal(first.get_state(), again.get_state())
    assert not torch.equal(one["flip"], augmentation.draw(2000, first)["flip"])
    assert 0.45 < one["flip"].float().mean() < 0.55
    assert one["shift"].unique().tolist() == [0, 1, 2, 3, 4]
    assert Augmentation().draw(5, first) == {}


def test_augmentation_refuses_wrong_options() -> None:
    with pytest.raises(ValueError, match="shift is -1"):
        Augmentation(shift=-1)
    with pytest.raises(ValueError, match="cutout is -2"):
        Augmentation(cutout=-2)
    drawn = Augmentation(flip=True).draw(3, torch.Generator())
    for augmentation, count in ((Augmentation(flip=True), 4), (Augmentation(shift=1), 3)):
        with pytest.raises(ValueError, match="of other settings, or not of"):
            augmentation.apply(torch.zeros(count, 1, 4, 4), drawn)


# -------------------------------------------------------------------------------- batches


@settings(deadline=None)
@given(
    count=st.integers(0, 200),
    size=st.integers(1, 50),
    seed=st.integers(0),
    epoch=st.integers(0, 99),
)
def test_batches_are_full_and_never_repeat_an_image(
    count: int, size: int, seed: int, epoch: int
) -> None:
    parts = batches(count, size, seed, epoch)
    assert [len(part) for part in parts] == [size] * (count // size)
    seen = [i for part in parts for i in part.tolist()]
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(count))
    again = batches(count, size, seed, epoch)
    assert all(torch.equal(x, y) for x, y in zip(parts, again, strict=True))


def test_batches_differ_between_seeds_and_epochs() -> None:
    pairs = [(seed, epoch) for seed in (0, 1, 2, 65535) for epoch in range(30)]
    orders = {tuple(batches(50, 50, *pair)[0].tolist()) for pair in pairs}
    assert len(orders) == len(pairs)


def test_seeds_are_as_far_apart_as_the_docstring_says() -> None:
    apart = np.arange(1, 1 << 16, dtype=np.uint64) * np.uint64(0x9E3779B1) % np.uint64(1 << 32)
    assert np.minimum(apart, (1 << 32) - apart).min() == 11547


def test_the_formats_are_found() -> None:
    assert format_names() == ("cifar10", "cifar100", "folder", "idx", "images", "webdataset")


def test_grey_pictures(repo_root: Path, tmp_path: Path) -> None:
    """Pixels in memory, streamed, and from the application are the same."""
    folder = repo_root / "app" / "demo" / "images"
    grey = load("folder", folder, "test", 24, colour="grey")
    streamed = load("folder", folder, "test", 24, memory=0, colour="grey")
    assert grey.shape == streamed.shape == (1, 24, 24) and grey.form.colour == "grey"
    assert torch.equal(grey.images, streamed.images)
    fix_point = best_fix_point(grey.form)
    preprocess, target = Preprocessor(grey.form, fix_point), np.empty((24, 24, 1), np.int8)
    for number in range(3):
        preprocess(read_bgr(grey.files[number]), target)
        wanted = grey.inputs(slice(number, number + 1))[0].permute(1, 2, 0).numpy()
        assert np.array_equal(target * 2.0**-fix_point, wanted)
    with pytest.raises(ValueError, match="colour is 'gray'; it must be rgb or grey"):
        load("folder", folder, "test", colour="gray")
    with pytest.raises(DataError, match="images are grey; colour converts pictures of folders"):
        _write_idx(tmp_path / "idx", _images(3, 4, 4), _labels(3, 10))
        load("idx", tmp_path / "idx", "test", colour="rgb")


@pytest.mark.parametrize(("each", "test"), [(2, 1), (4, 1), (5, 1), (11, 2)])
def test_few_images_of_each_class(each: int, test: int, repo_root: Path, tmp_path: Path) -> None:
    for name in ("Bag", "Coat"):
        (tmp_path / name).mkdir()
        for path in sorted((repo_root / "app/demo/images" / name).iterdir())[:each]:
            shutil.copy(path, tmp_path / name)
    first, last = (load("folder", tmp_path, split) for split in ("train", "test"))
    assert torch.bincount(last.labels).tolist() == [test, test]
    assert torch.bincount(first.labels).tolist() == [each - test, each - test]


def test_one_image_of_each_class(repo_root: Path, tmp_path: Path) -> None:
    for name in ("Bag", "Coat"):
        (tmp_path / name).mkdir()
        shutil.copy(min((repo_root / "app/demo/images" / name).iterdir()), tmp_path / name)
    with pytest.raises(DataError, match=r"one image of each class is too few .* kind = \"images\""):
        load("folder", tmp_path, "train")
