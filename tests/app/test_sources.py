from __future__ import annotations

import itertools
import os
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.camera import CameraOptions, parse_camera
from tutelage.app.sources.frames import CameraError, Frame, SourceError
from tutelage.app.sources.jpeg_stream import JpegSplitter
from tutelage.app.sources.load_patterns import LoadPattern, LoadPatternSource, verdict
from tutelage.app.sources.url import without_password
from tutelage.core.images.decoder import decode_image, read_image


def _decoded(uri: str) -> list[Frame]:
    """Read a source to its end, and decode its frames as a lane does."""
    frames = list(open_source(uri))
    for frame in frames:
        if frame.decode is not None:
            try:
                frame.image = frame.decode()
            except ValueError as error:
                frame.error = str(error)
    return frames


def _picture(path: Path, value: int = 90, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 20, (*size, 3))
    assert cv2.imwrite(str(path), (noise + value).astype(np.uint8))
    return path


def _video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 10 * number % 256, np.uint8))
    writer.release()
    return path


def test_a_directory_is_read_in_order_with_its_sub_directories(tmp_path: Path) -> None:
    for name in ("cat/b.png", "cat/a.JPG", "dog/c.bmp", "top.png"):
        _picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    frames = _decoded(str(tmp_path))
    assert source.length == 4 and not source.live
    assert [(f.index, f.name, f.folders) for f in frames] == [
        (0, "cat/a.JPG", ("cat",)),
        (1, "cat/b.png", ("cat",)),
        (2, "dog/c.bmp", ("dog",)),
        (3, "top.png", ()),
    ]
    assert all(f.image is not None and f.image.shape == (24, 32, 3) for f in frames)


def test_a_single_image_knows_no_true_label(tmp_path: Path) -> None:
    (frame,) = _decoded(str(_picture(tmp_path / "cat" / "a.png")))
    assert (frame.name, frame.folders, frame.error) == ("a.png", (), None)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_broken_images_are_reported_and_the_rest_goes_on(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = _picture(tmp_path / f"b{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / f"c{suffix}").write_bytes(b"")
    (tmp_path / f"d{suffix}").write_bytes(bytes(range(256)) * 4)
    frames = _decoded(str(tmp_path))
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
    errors = [frame.error for frame in _decoded(str(tmp_path))]
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
        ("ftp://host/stream", "ftp:// is not a known kind of source"),
        ("*.png", "matches 0 files, no image among them"),
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
        open_source("/dev/videos")
    assert capfd.readouterr() == ("", "")


def test_a_glob_and_a_file_url(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.png", "dog/a.png", "c.txt"):
        _picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("x")
    frames = list(open_source(str(tmp_path / "*" / "a.*")))
    assert [(f.name, f.folders) for f in frames] == [
        ("cat/a.png", ("cat",)),
        ("dog/a.png", ("dog",)),
    ]
    (frame,) = open_source(f"file://{tmp_path}/cat/b.png")
    assert frame.name == "b.png"


def test_a_video_shorter_than_announced_is_reported(tmp_path: Path) -> None:
    path = _video(tmp_path / "walk.avi", 40)
    data = bytearray(path.read_bytes())
    half = data.rfind(b"00dc", 0, len(data) // 2)
    data[half : data.rfind(b"idx1")] = bytes(data.rfind(b"idx1") - half)  # zeroed from there on
    path.write_bytes(data)
    source = open_source(str(path))
    count = len(list(source))
    assert source.length == 40 and 0 < count < 40
    assert source.warnings() == [f"{path}: announces 40 frames, only {count} could be decoded"]


def test_the_options_of_a_camera() -> None:
    assert parse_camera("0") == ("/dev/video0", CameraOptions())
    assert parse_camera("/dev/video2,size=1280x720,fps=7.5,format=mjpg") == (
        "/dev/video2",
        CameraOptions((1280, 720), 7.5, "MJPG"),
    )
    for wrong in ("0,size=12", "0,size=-1x5", "0,fps=fast", "0,format=jp", "0,colour=red", "x"):
        with pytest.raises(SourceError, match="camera"):
            parse_camera(wrong)


def test_passwords_are_not_shown() -> None:
    shown = without_password("rtsp://me:secret@cam.local:554/live?token=secret#secret")
    assert shown == "rtsp://cam.local:554/live"


def _jpegs(count: int) -> list[bytes]:
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 255, (16, 24, 3), dtype=np.uint8) for _ in range(count)]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in images]


@given(
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
    junk=st.lists(
        st.binary(max_size=20).filter(lambda b: b"\xff" not in b), min_size=5, max_size=5
    ),
)
def test_jpegs_are_found_however_the_stream_is_cut(cuts: list[int], junk: list[bytes]) -> None:
    jpegs = _jpegs(4)
    stream = b"".join(part for pair in zip(junk, [*jpegs, b""], strict=True) for part in pair)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    splitter = JpegSplitter()
    found = [
        jpeg
        for begin, end in itertools.pairwise(places)
        for jpeg in splitter.feed(stream[begin:end])
    ]
    assert found == jpegs and splitter.rest() == b""


@given(data=st.binary(max_size=4000), size=st.integers(1, 500))
def test_any_bytes_are_taken_apart_without_an_error(data: bytes, size: int) -> None:
    data = b"\xff\xd8\xff" + data
    splitter = JpegSplitter()
    total = sum(
        len(jpeg)
        for begin in range(0, len(data), size)
        for jpeg in splitter.feed(data[begin : begin + size])
    )
    assert total + len(splitter.rest()) <= len(data)


def test_a_jpeg_that_is_cut_off_ends_where_the_next_begins() -> None:
    first, second, third = _jpegs(3)
    splitter = JpegSplitter()
    found = list(splitter.feed(first[:-30] + second + third[:50]))
    assert found == [first[:-30], second] and splitter.rest() == third[:50]


def test_endless_headers_are_not_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.app.sources.jpeg_stream.LARGEST_JPEG", 10_000)
    splitter = JpegSplitter()
    assert list(splitter.feed(b"\xff\xd8")) == []
    for _ in range(100):
        assert list(splitter.feed(b"\xff\xe1\x03\xea" + b"x" * 1000)) == []
    assert len(splitter.rest()) <= 11_000
    assert list(splitter.feed(b"\xff\xd9" + _jpegs(1)[0])) == _jpegs(1)


def test_a_fill_byte_does_not_cut_a_jpeg_off() -> None:
    data = _jpegs(1)[0]
    np.testing.assert_array_equal(decode_image(data[:2] + b"\xff" + data[2:]), decode_image(data))
    with pytest.raises(ValueError, match="cut off"):
        decode_image(data[:-10])


def test_a_small_image_file_of_gigabytes_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    size = (30_000).to_bytes(4, "big")
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + size + b"\x08\x00\x00\x00\x00")
    png += chunk(b"IDAT", zlib.compress(bytes(30_001 * 1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(png)
    (frame,) = _decoded(str(tmp_path))
    assert frame.error == "picture of 30000x30000 is 900.0 megapixels; the limit is 67.1"


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:pass#1@host/s",
        "http://admin:pa/ss@host/",
        "rtsp://admin:12?3@host/s",
        "http://[bad",
        "http://",
    ],
)
def test_a_url_whose_password_is_in_doubt_is_not_shown(url: str) -> None:
    with pytest.raises(SourceError, match="write / as %2F") as caught:
        open_source(url)
    assert not any(part in str(caught.value) for part in ("admin", "pass#", "pa/", "12?", "[bad"))


def test_names_of_any_bytes_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"d\xe9")
    folder.mkdir()
    _picture(tmp_path / "a.png").rename(folder / os.fsdecode(b"b\xe9.png"))
    (frame,) = _decoded(str(tmp_path))
    assert (frame.name, frame.folders, frame.error) == ("d\ufffd/b\ufffd.png", ("d\ufffd",), None)
    assert open_source(str(folder)).name.endswith("d\ufffd/b\ufffd.png")
    _video(tmp_path / "a.avi", 3).rename(folder / "a.avi")
    with pytest.raises(SourceError, match="OpenCV needs a file name in UTF-8 to read a video"):
        open_source(str(folder / "a.avi"))


def test_a_thumbnail_does_not_end_its_jpeg() -> None:
    data = _jpegs(1)[0]
    whole = data[:2] + b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data + data[2:]
    assert list(JpegSplitter().feed(whole)) == [whole]


def test_endless_data_is_not_a_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.app.sources.jpeg_stream.LARGEST_JPEG", 10_000)
    splitter = JpegSplitter()
    assert list(splitter.feed(b"\xff\xd8\xff\xda\x00\x02")) == []
    for _ in range(100):
        assert list(splitter.feed(b"x" * 1000)) == []
    assert len(splitter.rest()) <= 11_000


def test_a_video_is_closed_while_it_is_read(tmp_path: Path) -> None:
    # Releasing a capture during a read used to lock up OpenCV's FFmpeg.
    path = str(_video(tmp_path / "walk.avi", 2000))
    for _ in range(20):
        source = open_source(path)
        reader = threading.Thread(target=lambda source=source: list(source), daemon=True)
        reader.start()
        time.sleep(0.005)
        source.close()
        reader.join(10)
        assert not reader.is_alive()


def test_an_image_file_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.core.images.decoder.MAX_IMAGE_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    with pytest.raises(ValueError, match="image file is larger than 0 MiB"):
        read_image(tmp_path / "a.png")


def test_a_png_that_promises_a_chunk_of_gigabytes_is_cut_off() -> None:
    """OpenCV allocates before it checks (found by fuzzing)."""
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    assert decode_image(bytes(data)).shape == decode_image(bytes(data) + b"behind").shape
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="cut off"):
        decode_image(bytes(data))


@pytest.mark.parametrize(
    "failed, p99, kept",
    [(0, 15.0, True), (0, 15.1, False), (10, 15.0, True), (11, 15.0, False), (1000, None, False)],
)
def test_failed_frames_count_as_too_late(failed: int, p99: float | None, kept: bool) -> None:
    load = LoadPattern("server", qps=100.0, bound_ms=15.0)
    latency = {} if p99 is None else {"total": {"p99": p99}}
    report = {"latency_ms": latency, "frames": {"in": 1000, "failed": failed}}
    assert verdict(load, report)["bound_kept"] is kept


def test_without_frames_no_bound_is_kept_or_exceeded() -> None:
    report = {"latency_ms": {}, "frames": {"in": 0, "failed": 0}}
    assert verdict(LoadPattern("server", bound_ms=15.0), report)["bound_kept"] is None


def test_arrivals_are_known_even_if_they_were_not_issued() -> None:
    source = LoadPatternSource("x", [Frame(0, "x")], LoadPattern("server", 0.5, qps=400.0))
    assert len(source.arrivals(0.0, time.monotonic() + 60)) == 0  # it has not begun
    frames = list(source)
    dues = [frame.due or 0.0 for frame in frames]
    begin, end = dues[len(dues) // 4], dues[-1]
    inside = [frame.index for frame, due in zip(frames, dues, strict=True) if begin <= due < end]
    assert list(source.arrivals(begin, end)) == inside and len(inside) > 20
    assert len(source.arrivals(begin, end + 10)) > len(inside) + 2000  # though it was closed
