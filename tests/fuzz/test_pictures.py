"""Damaged pictures, videos and streams of JPEGs, which the application and training read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st

from tests.fuzz.byte_edits import EDITS, edited
from tests.fuzz.harness import fuzz, one_line, scratch
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.frames import SourceError
from tutelage.app.sources.jpeg_stream import LARGEST_JPEG, JpegSplitter
from tutelage.core.images.decoder import decode_image

_SUFFIXES = [
    s
    for s in (".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm", ".gif")
    if cv2.haveImageWriter(f"x{s}")
]
_DEEP = "16 bits "
_MADE = [*_SUFFIXES, f"{_DEEP}.png", f"{_DEEP}.tiff", f"{_DEEP}.ppm", "progressive .jpg"]


@functools.cache
def picture(suffix: str) -> bytes:
    """A small picture in a format."""
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (40, 30))
    if suffix.startswith(_DEEP):
        image = image.astype(np.uint16) * np.uint16(257)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1] if suffix.startswith("progressive") else []
    return bytes(cv2.imencode(suffix.rpartition(" ")[2], image, options)[1].tobytes())


@fuzz(st.tuples(st.sampled_from(_MADE), EDITS), 150)
def test_decode(case: Any) -> None:
    """Changed bytes of a picture."""
    suffix, edits = case
    try:
        image = decode_image(edited(picture(suffix), edits))
        assert image.ndim == 3 and image.dtype == np.uint8
    except ValueError as error:
        one_line(error)


_SIZES = st.sampled_from([0, 1, 255, 8191, 8192, 8193, 30_000, 65_535, 2**24, 2**31 - 1, 2**32 - 1])


@fuzz(st.tuples(st.sampled_from([".png", ".bmp", ".jpg"]), _SIZES, _SIZES), 60)
def test_untrue_sizes(case: Any) -> None:
    """A header with sizes that do not match the pixels."""
    suffix, width, height = case
    data = bytearray(picture(suffix))
    if suffix == ".png":  # IHDR, with a correct CRC
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        import zlib

        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    elif suffix == ".bmp":
        data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (height % 65536).to_bytes(2, "big") + (width % 65536).to_bytes(2, "big")
    try:
        decode_image(bytes(data))
    except ValueError as error:
        one_line(error)


@fuzz(st.tuples(st.lists(EDITS, min_size=1, max_size=4), st.integers(1, 5000)), 80)
def test_stream(case: Any) -> None:
    """Sequences of damaged JPEGs, in chunks of any size: bounded, and later ones are found."""
    every, chunk = case
    whole = picture(".jpg")
    data = b"".join(whole + edited(whole, edits) for edits in every) + whole
    splitter, found = JpegSplitter(), []
    for start in range(0, len(data), chunk):
        found += list(splitter.feed(data[start : start + chunk]))
        assert len(splitter.rest()) <= LARGEST_JPEG + chunk
    found.append(splitter.rest())
    for jpeg in found:
        try:
            decode_image(jpeg)
        except ValueError as error:
            one_line(error)


@fuzz(
    st.tuples(
        st.sampled_from([*_SUFFIXES, ".mp4", ".avi", ".txt"]),
        EDITS,
        st.sampled_from([".png", ".jpg", ".mp4", ".avi", ".mkv"]),
    ),
    60,
)
def test_source(case: Any) -> None:
    """A file given to the application, under any suffix."""
    made, edits, suffix = case
    path = scratch() / f"seen{suffix}"
    path.write_bytes(edited(_content(made), edits))
    try:
        source = open_source(str(path))
        for frame in source:
            if frame.decode is not None:
                try:
                    frame.decode()
                except ValueError as error:
                    one_line(error)
            assert frame.index < 1000
        source.close()
    except SourceError as error:
        one_line(error)


@functools.cache
def _content(suffix: str) -> bytes:
    if suffix in _SUFFIXES:
        return picture(suffix)
    if suffix == ".txt":
        return b"no picture at all\n" * 10
    path = Path(scratch() / f"made{suffix}")
    code = cv2.VideoWriter.fourcc(*("mp4v" if suffix == ".mp4" else "MJPG"))
    video = cv2.VideoWriter(str(path), code, 10, (40, 30))
    for grey in range(0, 200, 20):
        video.write(np.full((30, 40, 3), grey, np.uint8))
    video.release()
    return path.read_bytes()
