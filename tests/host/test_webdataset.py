"""WebDataset shards: real .tar files, read in place, and broken ones."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.host.train.data import DataError, load  # noqa: E402
from tutelage.host.train.data.formats import webdataset  # noqa: E402
from tutelage.host.train.data.loading import load_held_out  # noqa: E402

Members = Iterable[tuple[str, bytes]]


def _pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8))


def _png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))[1].tobytes()


def _samples(pictures: list[np.ndarray], labels: list[int], first: int = 0) -> Members:
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True), first):
        yield f"{number:04}.png", _png(picture)
        yield f"{number:04}.cls", b"%d\n" % label


def _shard(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def _refused(message: str, path: Path, split: str = "train") -> None:
    with pytest.raises(DataError, match=message) as caught:
        load("webdataset", path, split, memory=0)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("memory", [0, 1 << 20])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_two_splits(tmp_path: Path, form: int, memory: int) -> None:
    pictures = _pictures(7)
    long = "d" * 90 + "/" + "e" * 90 + "/"  # a name that needs a separate header, except in ustar
    _shard(tmp_path / "train/00.tar", _samples(pictures[:3], [2, 0, 1]), form)
    members = ((long + name, content) for name, content in _samples(pictures[3:5], [0, 2], 3))
    _shard(tmp_path / "train/01.tar", members, form)
    _shard(tmp_path / "val/00.tar", _samples(pictures[5:], [1, 1]), form)
    train, test = (
        load("webdataset", tmp_path, split, memory=memory) for split in ("train", "test")
    )
    assert train.is_streamed == (memory == 0) and not train.files
    assert train.classes == test.classes == ("0", "1", "2")
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 1, 0, 2], [1, 1])
    np.testing.assert_array_equal(train.images.permute(0, 2, 3, 1), np.stack(pictures[:5]))
    np.testing.assert_array_equal(test.images.permute(0, 2, 3, 1), np.stack(pictures[5:]))
    chosen = train.subset(torch.tensor([4, 1]))
    np.testing.assert_array_equal(chosen.images.permute(0, 2, 3, 1), np.stack(pictures)[[4, 1]])


def test_shards_whose_names_say_the_split(tmp_path: Path) -> None:
    pictures = _pictures(3)
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    _shard(tmp_path / "pets-train-0000.tar", _samples(pictures[:1], [0]))
    _shard(tmp_path / "pets-train-0001.tar", _samples(pictures[1:2], [0]))
    _shard(tmp_path / "pets-validation-00.tar", _samples(pictures[2:], [1]))
    train, test = load("webdataset", tmp_path, "train"), load("webdataset", tmp_path, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0] and test.labels.tolist() == [1]
    (tmp_path / "classnames.txt").write_text("cat\n")
    _refused("label 1 is out of range: there are 1 classes", tmp_path, "test")


def test_shards_without_splits_give_every_fifth_image_of_a_class_to_test(tmp_path: Path) -> None:
    labels = [0, 1] * 6 + [0]
    _shard(tmp_path / "a.tar", _samples(_pictures(6), labels[:6]))
    _shard(tmp_path / "b.tar", _samples(_pictures(7), labels[6:], 6))
    train, test = load("webdataset", tmp_path, "train"), load("webdataset", tmp_path, "test")
    assert test.labels.tolist() == [0, 1] and len(train) == 11
    np.testing.assert_array_equal(test.images[0].permute(1, 2, 0), _pictures(7)[2])  # image 8


def test_a_place_of_its_own_for_validation(tmp_path: Path) -> None:
    _shard(tmp_path / "sets/train/0.tar", _samples(_pictures(4), [0, 1, 2, 0]))
    _shard(tmp_path / "sets/test/0.tar", _samples(_pictures(1), [0]))
    _shard(tmp_path / "held/0.tar", _samples(_pictures(2), [2, 0]))
    train = load("webdataset", tmp_path / "sets", "train", 6)
    held = load_held_out("webdataset", tmp_path / "held", train)
    assert held.labels.tolist() == [2, 0] and held.form == train.form and held.shape == (3, 6, 6)


def test_files_that_are_not_samples_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Other members, samples without one of their parts, links and devices."""
    picture = _png(_pictures(1)[0])
    path = _shard(
        tmp_path / "a.tar",
        [
            ("readme", b"x"), ("a.png", picture), ("b.cls", b"0"), ("dir/c.json", b"{}"),
            ("dir/c.PNG", picture), ("dir/c.second.png", b""), ("dir/c.cls", b"0"),
        ],
    )  # fmt: skip
    with tarfile.open(path, "a") as archive:
        for name, kind in (("d.png", tarfile.SYMTYPE), ("d.cls", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("f.cls"))
    _refused("f.cls: a label must be a number from 0", tmp_path)
    path = _shard(tmp_path / "a.tar", [("a.png", picture), ("dir/c.png", picture),
                                       ("dir/c.cls", b"0"), ("e.cls", b"0")])  # fmt: skip
    assert load("webdataset", tmp_path, "train").labels.tolist() == [0]
    assert caplog.messages == [f"{tmp_path}: skipped 2 files: 2 with no image or no .cls beside it"]


def test_only_files_of_the_folder_are_shards(tmp_path: Path) -> None:
    _refused("no such directory", tmp_path / "nowhere")
    _refused("has no .tar files", tmp_path)
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "b.tar").symlink_to("/dev/zero")
    _refused("has no .tar files", tmp_path)
    _shard(tmp_path / "c.tar", [])
    _refused("c.tar: has no sample: an image", tmp_path)
    _shard(tmp_path / "x-train.tar", _samples(_pictures(1), [0]))
    _refused("has shards of train but none of test", tmp_path, "test")


@pytest.mark.parametrize(
    "label", [b"cat", b"", b"-1", b"1.5", b"100000", b"9" * 10, b"\xd9\xa3", b" " * 30]
)
def test_labels_that_are_not_numbers(tmp_path: Path, label: bytes) -> None:
    _shard(tmp_path / "a.tar", [("a.cls", label), ("a.png", b"")])
    _refused("a.tar: a.cls: a label must be a number from 0 to 99999", tmp_path)


@pytest.mark.parametrize("cut", [600, 1500, 3000, -1100, -512 * 17 - 40])
def test_a_shard_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = _shard(tmp_path / "a.tar", _samples(_pictures(3), [0, 1, 2]))
    path.write_bytes(path.read_bytes()[:cut])
    # Any part of the padding after the end mark may be missing.
    if cut == -1100:
        assert len(load("webdataset", tmp_path, "train", memory=0)) == 3
    else:
        _refused("truncated|unexpected end of data", tmp_path)


def test_a_shard_that_is_damaged_or_none(tmp_path: Path) -> None:
    path = _shard(tmp_path / "a.tar", _samples(_pictures(3), [0, 1, 2]))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"0001.cls")] ^= 1
    path.write_bytes(damaged)
    _refused("truncated or damaged at byte", tmp_path)
    for content in (b"", b"text" * 400, whole[:100]):
        path.write_bytes(content)
        _refused("not a readable tar archive", tmp_path)


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """A file that claims many bytes must have them, but a sparse one costs its sender nothing."""
    member = tarfile.TarInfo("a")
    member.type, member.size = tarfile.XHDTYPE, 7 << 30
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.truncate((7 << 30) + 2048)
    _refused("a header of 7516192768 bytes", tmp_path)


def test_a_picture_is_read_in_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _shard(tmp_path / "a.tar", _samples(_pictures(1), [0]))
    data = load("webdataset", tmp_path, "train", 8, memory=0)
    monkeypatch.setattr(webdataset, "MAX_IMAGE_BYTES", 60)
    with pytest.raises(DataError, match=r"a.tar, picture at byte \d+: larger than"):
        data.pixels([0])
    monkeypatch.undo()
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"a.tar, picture at byte \d+: No such file"):
        data.pixels([0])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=4),
       end=st.integers(0, 4096))  # fmt: skip
def test_damaged_shards_are_refused_or_read(
    tmp_path: Path, edits: list[tuple[int, int]], end: int
) -> None:
    path = _shard(tmp_path / "a.tar", _samples(_pictures(2), [0, 1]))
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(content[: end if end % 3 else None])
    try:
        data = load("webdataset", tmp_path, "train", 8, memory=0)
        assert 1 <= len(data) <= 2
        data.pixels()
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
