from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from app.sources import CameraError, CameraSource, CaptureSource, SourceError, open_source


def _picture(path: Path, value: int = 90, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 20, (*size, 3))
    assert cv2.imwrite(str(path), (noise + value).astype(np.uint8))
    return path


def _video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    return path


def test_a_directory_is_read_in_order_with_its_sub_directories(tmp_path: Path) -> None:
    for name in ("cat/b.png", "cat/a.JPG", "dog/c.bmp", "top.png"):
        _picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    frames = list(source)
    assert source.length == 4 and not source.live
    assert [(f.index, f.name, f.folder) for f in frames] == [
        (0, "cat/a.JPG", "cat"),
        (1, "cat/b.png", "cat"),
        (2, "dog/c.bmp", "dog"),
        (3, "top.png", None),
    ]
    assert all(f.image is not None and f.image.shape == (24, 32, 3) for f in frames)


def test_a_single_image_knows_no_true_label(tmp_path: Path) -> None:
    (frame,) = open_source(str(_picture(tmp_path / "cat" / "a.png")))
    assert (frame.name, frame.folder, frame.error) == ("a.png", None, None)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_broken_images_are_reported_and_the_rest_goes_on(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = _picture(tmp_path / f"b{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"c{suffix}").write_bytes(b"")
    (tmp_path / f"d{suffix}").write_bytes(bytes(range(256)) * 4)
    frames = list(open_source(str(tmp_path)))
    errors = [frame.error for frame in frames]
    assert errors[1] is None and frames[1].image is not None
    assert errors[2:] == ["file is empty", "not an image OpenCV can read"]
    if suffix in (".png", ".jpg", ".bmp"):
        assert errors[0] == "image file is cut off"
    assert capfd.readouterr() == ("", "")


def test_a_cut_off_jpeg_with_a_whole_thumbnail_is_found(tmp_path: Path) -> None:
    data = _picture(tmp_path / "a.jpg").read_bytes()
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    with_thumbnail = data[:2] + thumbnail + data[2:]
    (tmp_path / "a.jpg").write_bytes(with_thumbnail)
    (tmp_path / "b.jpg").write_bytes(with_thumbnail[:-40])
    (tmp_path / "c.jpg").write_bytes(with_thumbnail + b"appended by a telephone")
    errors = [frame.error for frame in open_source(str(tmp_path))]
    assert errors == [None, "image file is cut off", None]


def test_a_video_file_gives_all_its_frames(tmp_path: Path) -> None:
    source = open_source(str(_video(tmp_path / "walk.avi", 12)))
    frames = list(source)
    source.close()
    assert (source.length, source.fps) == (12, 10.0)
    assert [f.name for f in frames[::11]] == ["walk.avi#000000", "walk.avi#000011"]
    means = [f.image.mean() for f in frames if f.image is not None]
    np.testing.assert_allclose(means, np.arange(12) * 10, atol=4)


@pytest.mark.parametrize(
    "uri, message",
    [
        ("nowhere", "nowhere: no such file or directory"),
        ("empty", "no images in this directory"),
        ("text.mp4", "neither an image nor a video"),
        ("rtsp://host/stream", "streams are not supported"),
    ],
)
def test_wrong_sources_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("text.mp4").write_text("not a video at all")
    with pytest.raises(SourceError, match=message):
        open_source(uri)


def test_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CameraError, match="/dev/video87 cannot be opened: it does not exist"):
        open_source("/dev/video87")
    with pytest.raises(SourceError, match="a camera is a number or /dev/videoN"):
        open_source("/dev/null")
    assert capfd.readouterr() == ("", "")


def test_a_camera_that_stops_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The capture loop of a camera, on a device that can be had everywhere: a file that ends.
    file = cv2.VideoCapture(str(_video(tmp_path / "loop.avi", 3)))
    source = CameraSource.__new__(CameraSource)
    CaptureSource.__init__(source, "/dev/video0", file)
    frames = iter(source)
    assert [next(frames).name for _ in range(3)] == [f"video0#00000{n}" for n in range(3)]
    with pytest.raises(CameraError, match="stopped after 3 images"):
        next(frames)
