"""Decoded pictures are upright, 8 bits deep, complete and bounded; the same with every OpenCV."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core import MAX_PIXELS
from tutelage.core.images.decoder import decode_image, read_image

# Red, green and blue corners: no turn or mirror image of it is the same.
_CORNERS = np.full((8, 16, 3), 200, np.uint8)
_CORNERS[:4, :8], _CORNERS[:4, 8:], _CORNERS[4:, :8] = (0, 0, 255), (0, 255, 0), (255, 0, 0)

# Exif 2.3, 4.6.4: from the stored to the displayed orientation.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


def _exif(orientation: int, order: str = "<") -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(f"{order}IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


def _jpeg_with(exif: bytes, image: np.ndarray = _CORNERS) -> bytes:
    data = _encoded(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, 100)
    segment = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + data[2:]


def _png_with(exif: bytes, before_pixels: bool = True) -> bytes:
    data = _encoded(".png", _CORNERS)
    at = 33 if before_pixels else len(data) - 12
    return data[:at] + _png_chunk(b"eXIf", exif) + data[at:]


def _webp_with(exif: bytes) -> bytes:
    pixels = _encoded(".webp", _CORNERS, cv2.IMWRITE_WEBP_QUALITY, 101)[12:]
    height, width = _CORNERS.shape[:2]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + canvas + pixels
    body += b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(
    pixels: np.ndarray, order: str = "<", tags: dict[int, int] | None = None, bits: int = 0
) -> bytes:
    """An uncompressed TIFF of BGR (H, W, 3) or grey (H, W), with further tags of one value."""
    rgb = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    data = (rgb.byteswap() if order == ">" else rgb).tobytes()
    channels = 3 if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    depth = bits or 8 * pixels.dtype.itemsize
    values: dict[int, Sequence[int]] = {
        256: [width], 257: [height], 258: [depth] * channels, 259: [1],
        262: [2 if channels == 3 else 1], 273: [0], 277: [channels], 278: [height],
        279: [len(data)], **{tag: [value] for tag, value in (tags or {}).items()},
    }  # fmt: skip
    begin = 8 + 2 + 12 * len(values) + 4
    values[273] = [begin + 6]
    table = struct.pack(f"{order}H", len(values))
    for tag, given_ in sorted(values.items()):
        kind = "I" if tag in (273, 279) else "H"
        raw = struct.pack(f"{order}{len(given_)}{kind}", *given_)
        raw = struct.pack(f"{order}I", begin) if len(raw) > 4 else raw.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, 4 if kind == "I" else 3, len(given_)) + raw
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + table + bytes(4) + struct.pack(f"{order}3H", depth, depth, depth) + data


_CARRIERS: dict[str, Callable[[int], bytes]] = {
    "jpeg": lambda o: _jpeg_with(_exif(o)),
    "jpeg, big-endian": lambda o: _jpeg_with(_exif(o, ">")),
    "png": lambda o: _png_with(_exif(o)),
    "png, at its end": lambda o: _png_with(_exif(o, ">"), before_pixels=False),
    "webp": lambda o: _webp_with(_exif(o)),
    "tiff": lambda o: _tiff(_CORNERS, tags={274: o}),
    "tiff, big-endian": lambda o: _tiff(_CORNERS, ">", {274: o}),
    "tiff of 16 bits": lambda o: _tiff(_CORNERS.astype(np.uint16) * 257, tags={274: o}),
}


@pytest.mark.parametrize("carrier", _CARRIERS)
def test_every_orientation_is_applied_whatever_the_format(carrier: str) -> None:
    for orientation, turn in _TURNS.items():
        image = decode_image(_CARRIERS[carrier](orientation))
        wanted = turn(_CORNERS)
        assert image.shape == wanted.shape and image.dtype == np.uint8, orientation
        # JPEG's colours are rounded; its blocks begin at the corners.
        difference = np.abs(image.astype(int) - wanted).mean()
        assert difference < (20 if "jpeg" in carrier else 1e-9), (orientation, difference)


@pytest.mark.parametrize("carrier", _CARRIERS)
@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_changes_nothing(carrier: str, orientation: int) -> None:
    assert decode_image(_CARRIERS[carrier](orientation)).shape == _CORNERS.shape


@given(damage=st.binary(max_size=40), length=st.integers(0, 26))
@settings(deadline=None)
def test_malformed_exif_changes_no_size(damage: bytes, length: int) -> None:
    for exif in (damage, _exif(1)[:length] + damage, _exif(1)[:length]):
        for data in (_jpeg_with(exif), _png_with(exif), _webp_with(exif)):
            assert sorted(decode_image(data).shape) == sorted(_CORNERS.shape)


def test_a_tag_that_leads_nowhere_does_not_hide_the_orientation() -> None:
    entries = struct.pack("<HHII", 258, 3, 3, 60_000) + struct.pack("<HHIHH", 274, 3, 1, 6, 0)
    exif = b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    assert decode_image(_png_with(exif)).shape == (16, 8, 3)


# -- depth ------------------------------------------------------------------------------------


def _pnm(kind: int, largest: int, values: Sequence[int]) -> bytes:
    head = b"P%d\n# a comment\n%d 1\n%d\n" % (kind, len(values), largest)
    samples = [v for v in values for _ in range(3 if kind in (3, 6) else 1)]
    if kind < 4:
        return head + b" ".join(b"%d" % v for v in samples) + b"\n"
    return head + struct.pack(f">{len(samples)}{'H' if largest > 255 else 'B'}", *samples)


@pytest.mark.parametrize("kind", [2, 3, 5, 6])
@pytest.mark.parametrize("largest", [1, 15, 100, 255, 256, 1023, 4095, 65535])
def test_the_maxval_of_a_pgm_and_ppm_becomes_white(kind: int, largest: int) -> None:
    values = [0, largest // 3, largest // 2, largest]
    image = decode_image(_pnm(kind, largest, values))
    assert image.shape == (1, 4, 3)
    # OpenCV itself scales text of 8 bits, and rounds it down.
    slack = 1 if kind < 4 and largest < 255 else 0.5
    np.testing.assert_allclose(image[0, :, 0], np.array(values) * 255 / largest, atol=slack)


def test_the_maximum_sample_value_of_a_tiff_becomes_white_where_it_is_a_depth() -> None:
    values = np.array([[0, 1000, 2047, 4095]], np.uint16)
    image = decode_image(_tiff(values, tags={281: 4095}))
    assert image[0, :, 0].tolist() == [0, 62, 127, 255]
    # A statistic of this picture's content must not change its brightness.
    bright = np.array([[0, 1000, 5000, 30000]], np.uint16)
    plain = decode_image(_tiff(bright)).tolist()
    assert decode_image(_tiff(bright, tags={281: 30000})).tolist() == plain
    assert decode_image(_tiff(bright, tags={281: 65535})).tolist() == plain


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_rounded_to_8(channels: int) -> None:
    wide = np.arange(0, 65536, 97, dtype=np.uint16)
    pixels = np.stack([wide] * channels, -1)[None]
    wanted = np.rint(wide / 257)
    for data in (_encoded(".png", pixels), _tiff(pixels.squeeze(-1) if channels == 1 else pixels)):
        image = decode_image(data)
        assert image.dtype == np.uint8 and image.shape == (1, len(wide), 3)
        np.testing.assert_array_equal(image[0, :, 0], wanted)


def test_8_bits_written_as_16_come_back_exactly() -> None:
    data = _encoded(".png", _CORNERS.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(data), _CORNERS)


@pytest.mark.parametrize("write", [lambda p: _encoded(".png", p), _tiff], ids=["png", "tiff"])
def test_12_bits_in_16_that_nothing_declares_are_refused(
    write: Callable[[np.ndarray], bytes],
) -> None:
    pixels = np.array([[0, 17, 4095]], np.uint16)
    with pytest.raises(ValueError, match="no value above 4095: 12-bit values would be nearly"):
        decode_image(write(pixels))
    assert decode_image(write(pixels + np.uint16(1))).max() == 16


def test_tiffs_that_only_some_versions_read_are_refused_by_all() -> None:
    floats = np.linspace(0, 1, 4, dtype=np.float32)[None]
    with pytest.raises(ValueError, match="floating point"):
        decode_image(_tiff(floats, tags={339: 3}))
    with pytest.raises(ValueError, match="samples of 16 bits, floating point or signed"):
        decode_image(_tiff(np.array([[1, 2]], np.uint16), tags={339: 2}))
    with pytest.raises(ValueError, match="samples of 12 bits"):
        decode_image(_tiff(np.zeros((1, 3), np.uint8), bits=12))


def test_unsupported_formats_are_reported_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="HEIC and AVIF pictures are not supported; convert"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


# -- size -------------------------------------------------------------------------------------


def _claims(width: int, height: int) -> dict[str, bytes]:
    """Headers of every format that claim a number of pixels."""
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, *[0] * 4)
    )
    png += _png_chunk(b"IDAT", bytes(width * height // 1000)) + _png_chunk(b"IEND", b"")
    jpeg = bytearray(_encoded(".jpg", _CORNERS))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", height, width)
    at = jpeg.index(b"\xff\xda") + 14
    jpeg[at:-2] = bytes(width * height // 10)
    bmp = bytearray(_encoded(".bmp", _CORNERS))
    bmp[18:26] = struct.pack("<ii", width, -height)
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    webp = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    tiff = _tiff(_CORNERS[..., 0], tags={256: width, 257: height})
    return {
        "png": png, "jpeg": bytes(jpeg), "bmp": bytes(bmp), "tiff": tiff,
        "webp": b"RIFF" + struct.pack("<I", len(webp)) + webp,
        "pgm": b"P5 %d %d 255\n" % (width, height) + bytes(width * height),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp", "pgm"])
def test_a_picture_over_the_limit_is_refused_by_its_header(kind: str) -> None:
    with pytest.raises(ValueError) as caught:
        decode_image(_claims(9000, 9000)[kind])
    wanted = "picture of 9000x9000 is 81.0 megapixels; the limit is 67.1"
    assert str(caught.value) == wanted and 67.1e6 < MAX_PIXELS < 67.2e6


def test_a_valid_picture_over_the_limit(shared_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"9000x9000 is 81\.0 megapixels; the limit is 67\.1"):
        read_image(shared_dir / "cases" / "15_image_over_64mp" / "81mp.png")


def test_headers_that_have_no_pixels_take_no_memory() -> None:
    """A few hundred bytes that claim 64 megapixels are refused before anything is claimed."""
    jpeg = bytearray(_encoded(".jpg", _CORNERS))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 8000, 8000)
    progressive = bytearray(_encoded(".jpg", _CORNERS, cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    at = progressive.index(b"\xff\xc2") + 5
    progressive[at : at + 4] = struct.pack(">HH", 8000, 8000)
    png = b"\x89PNG\r\n\x1a\n" + _png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, *[0] * 4)
    )
    png += _png_chunk(b"IDAT", zlib.compress(bytes(1000))) + _png_chunk(b"IEND", b"")
    claims: list[int] = []
    for data in (bytes(jpeg), bytes(progressive), png, b"P6 8000 8000 255\n" + bytes(1000)):
        with pytest.raises(ValueError, match="cut off"):
            decode_image(data, claims.append)
    assert claims == []
    decode_image(_encoded(".jpg", _CORNERS), claims.append)
    assert claims == [8 * 16]


def test_hostile_headers_end_soon() -> None:
    start = _encoded(".jpg", _CORNERS)
    scan = start[start.index(b"\xff\xda") : -2]
    many_chunks = _encoded(".png", _CORNERS)
    many_chunks = many_chunks[:33] + _png_chunk(b"teXt", b"") * 200_000 + many_chunks[33:]
    for data, words in (
        (start[:-2] + scan * 200 + b"\xff\xd9", "more than 100 scans"),
        (start[:2] + b"\xff\xfe\0\2" * 50_000 + start[2:], "more than 10000 segments"),
        (many_chunks, "more than 131072 chunks"),
    ):
        with pytest.raises(ValueError, match=words):
            decode_image(data)
    filled = start[:2] + b"\xff" * 1_000_000 + start[2:]
    np.testing.assert_array_equal(decode_image(filled), decode_image(start))


# -- pictures that break off ------------------------------------------------------------------

_SAMPLING = getattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR", None)  # from OpenCV 4.7 on


@st.composite
def _jpegs(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, bytes]:
    """A picture, and a JPEG of it: of noise or plain, coded in any way that OpenCV can."""
    height, width = draw(st.integers(least, 70)), draw(st.integers(least, 70))
    shape = (height, width) if draw(st.booleans()) else (height, width, 3)
    level, noise = (
        draw(st.sampled_from([0, 127, 128, 129, 255])),
        draw(st.sampled_from([0, 3, 100])),
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = np.clip(level + rng.integers(-noise, noise + 1, shape), 0, 255).astype(np.uint8)
    if draw(st.booleans()):
        image[-min(height, 20) :] = 128  # libjpeg's substitute for missing data
    options = [cv2.IMWRITE_JPEG_QUALITY, draw(st.sampled_from([1, 30, 80, 95, 100]))]
    options += [cv2.IMWRITE_JPEG_OPTIMIZE, draw(st.integers(0, 1))]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, draw(st.integers(0, 1))]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, draw(st.sampled_from([0, 0, 1, 2, 5, 100]))]
    if _SAMPLING is not None:
        factors = [0x411111, 0x221111, 0x211111, 0x111111]
        options += [_SAMPLING, draw(st.sampled_from(factors))]
    return image, _encoded(".jpg", image, *options)


@given(case=_jpegs(), behind=st.binary(max_size=30))
@settings(max_examples=300, deadline=None)
def test_whole_jpegs_are_never_called_cut_off(
    case: tuple[np.ndarray, bytes], behind: bytes
) -> None:
    _, data = case
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_image(data), plain)
    np.testing.assert_array_equal(decode_image(data + behind), plain)
    # Some encoders add fill bytes before the end marker.
    np.testing.assert_array_equal(decode_image(data[:-2] + b"\xff\xff" + data[-2:]), plain)


@given(case=_jpegs(17), share=st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_a_cut_jpeg_with_an_end_mark_is_found_or_has_lost_one_block(
    case: tuple[np.ndarray, bytes], share: float
) -> None:
    """No loss goes unreported, except of the last units of 16x16 pixels and of the last
    pass of a progressive picture, which only refines it."""
    _, data = case
    scan = data.index(b"\xff\xda")
    cut = scan + int(share * (len(data) - 2 - scan))
    torn = data[:cut].rstrip(b"\xff") + b"\xff\xd9"
    try:
        image = decode_image(torn).astype(int)
    except ValueError as error:
        assert str(error) in ("image file is cut off", "not an image OpenCV can read")
        return
    whole = decode_image(data).astype(int)
    if b"\xff\xc2" in data[:scan]:
        assert torn.count(b"\xff\xda") == data.count(b"\xff\xda")
        return
    height, width = whole.shape[:2]
    lost = np.abs(image - whole).max(2) > 0
    # The last unit, and the adjacent pixel that its colour affects.
    lost[(height - 1) // 16 * 16 - 2 :, max(0, (width - 1) // 32 * 32 - 2) :] = False
    assert not lost.any()


@pytest.mark.parametrize("shape", [(32, 32, 3), (16, 16), (40, 24, 3), (17, 40, 3)])
@pytest.mark.parametrize("quality", [75, 95])
def test_a_small_jpeg_loses_nothing_without_being_said(shape: tuple[int], quality: int) -> None:
    """The last unit of 16x16 pixels is a quarter of a CIFAR picture."""
    coarse = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    image = cv2.resize(coarse, shape[1::-1])[..., : shape[2] if len(shape) > 2 else 1]
    data = _encoded(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, quality)
    whole = decode_image(data)
    for cut in range(data.index(b"\xff\xda") + 15, len(data) - 2):
        try:
            found = decode_image(data[:cut].rstrip(b"\xff") + b"\xff\xd9")
        except ValueError:
            continue
        np.testing.assert_array_equal(found, whole)  # what was cut off is padding


def test_a_torn_jpeg_with_an_end_mark(shared_dir: Path) -> None:
    with pytest.raises(ValueError, match="cut off"):
        read_image(shared_dir / "cases" / "16_hostile" / "torn.jpg")


# 48x48, a scan for each colour: cjpeg -scans, which OpenCV cannot write.
_ONE_SCAN_PER_COLOUR = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACAWGBwYFCAcGhwkIiAmMFA0MCwsMGJGSjpQdGZ6eHJmcG6AkLicgIiu"
    "im5woNqirr7EztDOfJri8uDI8LjKzsb/2wBDASIkJDAqMF40NF7GhHCExsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbG"
    "xsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsb/wAARCAAwADADAREAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAA"
    "AgQF/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAAPwDJMyM0hGZmjMzI0hmRmkMjM0hGZk//xAAWAQEBAQAA"
    "AAAAAAAAAAAAAAACBAX/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oACAECEQA/ANwBABVCAgKoBAQVCAgCsBABVCAC"
    "L//EABUBAQEAAAAAAAAAAAAAAAAAAAMF/8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/aAAgBAxEAPwAClKUqIUpSlRSk"
    "KUqKUpClRSlKQqKUpSkf/9k="
)


def test_a_jpeg_of_one_scan_per_colour_is_found_torn() -> None:
    """If the last colour is truncated, no pixel is grey."""
    data = _ONE_SCAN_PER_COLOUR
    whole = decode_image(data)
    assert whole.shape == (48, 48, 3)
    for cut in range(data.rindex(b"\xff\xda") + 10, len(data) - 2):
        torn = data[:cut] + b"\xff\xd9"
        try:
            np.testing.assert_array_equal(decode_image(torn), whole)  # all that counts is there
        except ValueError as error:
            assert str(error) == "image file is cut off"


def test_a_jpeg_of_12_bits_is_named() -> None:
    data = bytearray(_encoded(".jpg", _CORNERS))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ValueError, match="JPEG of 12 bits; only 8 bits are supported"):
        decode_image(bytes(data))


def test_a_missing_restart_interval_is_found() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    data = _encoded(".jpg", image, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
    begin, end = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
    assert decode_image(data).shape == image.shape
    with pytest.raises(ValueError, match="cut off"):
        decode_image(data[:begin] + data[end:])


def test_an_animated_webp_is_refused_by_every_opencv() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + len(body).to_bytes(4, "little") + body

    image = _encoded(".webp", _CORNERS)[12:]
    sides = b"\x0f\0\0\x07\0\0"  # 16x8
    frame = chunk(b"ANMF", bytes(6) + sides + bytes(4) + image)
    chunks = chunk(b"VP8X", b"\2\0\0\0" + sides) + chunk(b"ANIM", bytes(6)) + 2 * frame
    with pytest.raises(ValueError, match="animated WebP"):
        decode_image(chunk(b"RIFF", b"WEBP" + chunks))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".bmp", ".ppm"])
def test_other_formats_cut_anywhere_are_refused(suffix: str) -> None:
    image = cv2.resize(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8), (40, 30))
    data = _encoded(suffix, image)
    for cut in range(0, len(data) - 1, max(1, len(data) // 60)):
        with pytest.raises(ValueError):
            decode_image(data[:cut])


def test_a_cut_png_with_an_end_is_refused() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    data = _encoded(".png", image)
    size = int.from_bytes(data[data.index(b"IDAT") - 4 : data.index(b"IDAT")], "big")
    begin = data.index(b"IDAT") + 4
    pixels = data[begin : begin + size // 2]
    torn = data[: begin - 8] + _png_chunk(b"IDAT", pixels) + _png_chunk(b"IEND", b"")
    with pytest.raises(ValueError):
        decode_image(torn)


def test_the_format_is_that_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    for suffix in (".png", ".bmp", ".tiff", ".ppm", ".jfif"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(_encoded(".png" if suffix == ".jfif" else suffix, _CORNERS))
        np.testing.assert_array_equal(read_image(path), _CORNERS)
