from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import InputForm, int8_table
from tutelage.core.images.preprocessor import Preprocessor


def _form(colour: str, **changes: object) -> InputForm:
    channels = 1 if colour == "grey" else 3
    values: dict[str, object] = {
        "width": 6,
        "height": 4,
        "colour": colour,
        "mean": (33.3, 120.0, 0.0)[:channels],
        "scale": (1 / 58, 0.017, 1.0)[:channels],
    }
    return InputForm(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize("fix_point", [-2, 0, 5, 7])
def test_the_table_is_the_dpus_rounding(fix_point: int) -> None:
    form = _form("rgb")
    table = int8_table(form, fix_point)
    assert table.shape == (256, 3) and table.dtype == np.int8
    for channel in range(3):
        for pixel in range(256):
            value = (pixel - form.mean[channel]) * form.scale[channel]
            expected = max(-128, min(127, math.floor(value * 2.0**fix_point + 0.5)))
            assert table[pixel, channel] == expected


@pytest.mark.parametrize("colour", ["grey", "rgb", "bgr"])
def test_an_image_of_the_models_size_goes_through_the_table_alone(
    image: np.ndarray, colour: str
) -> None:
    form = _form(colour)
    buffers = np.zeros((2, 4, 6, len(form.mean)), np.int8)
    Preprocessor(form, 4)(image, buffers[1])
    ordered = {
        "grey": cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., np.newaxis],
        "rgb": image[..., ::-1],
        "bgr": image,
    }[colour]
    table = int8_table(form, 4)
    for channel in range(len(form.mean)):
        expected = table[ordered[..., channel], channel]
        np.testing.assert_array_equal(buffers[1, ..., channel], expected)
    assert not buffers[0].any()


@pytest.mark.parametrize("size", [(24, 20), (160, 120)])
@pytest.mark.parametrize("colour", ["grey", "rgb", "bgr"])
@pytest.mark.parametrize("same", [True, False])
def test_every_pixel_is_looked_up_in_the_table_of_its_channel(
    size: tuple[int, int], colour: str, same: bool
) -> None:
    """Small images and large ones, with one table for all channels and with three."""
    changes = {"mean": (128.0,), "scale": (1 / 128,)} if same else {}
    form = _form(colour, width=size[0], height=size[1], **changes)
    preprocess, table = Preprocessor(form, 6), int8_table(form, 6)
    rng = np.random.default_rng(2)
    for shape in (size[::-1], (300, 400), (333, 222), (7, 5)):
        image = rng.integers(0, 256, (*shape, 3), np.uint8)
        target = np.zeros((2, *size[::-1], form.channels), np.int8)
        preprocess(image, target[1])
        fitted = ImageFitter(form)(image)
        for channel in range(form.channels):
            expected = table[fitted[..., channel], channel]
            np.testing.assert_array_equal(target[1, ..., channel], expected)
        assert not target[0].any()


def test_a_grey_picture_keeps_its_values(image: np.ndarray) -> None:
    grey = np.repeat(image[..., :1], 3, axis=2)
    target = np.zeros((4, 6, 1), np.int8)
    Preprocessor(_form("grey", mean=(0.0,), scale=(1.0,)), -2)(grey, target)
    expected = np.clip(np.floor(grey[..., :1] / 4 + 0.5), -128, 127)
    np.testing.assert_array_equal(target, expected)


def test_the_target_is_written_in_place(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = cv2.LUT
    results: list[np.ndarray] = []

    def spy(*arguments: Any) -> np.ndarray:
        results.append(np.asarray(look_up(*arguments)))
        return results[-1]

    monkeypatch.setattr(cv2, "LUT", spy)
    for colour, channels in (("grey", 1), ("rgb", 3)):
        target = np.zeros((1, 4, 6, channels), np.int8)[0]
        Preprocessor(_form(colour), 4)(image, target)
        assert np.shares_memory(results[-1], target)


def test_other_sizes_are_resized_and_one_preprocessor_serves_them_all() -> None:
    preprocess = Preprocessor(_form("bgr", mean=(0.0,) * 3, scale=(0.5,) * 3), 0)
    for rows, columns in ((40, 60), (2, 3), (4, 6), (1, 1), (9, 1)):
        target = np.zeros((4, 6, 3), np.int8)
        preprocess(np.full((rows, columns, 3), (10, 20, 30), np.uint8), target)
        np.testing.assert_array_equal(target, np.full((4, 6, 3), (5, 10, 15)))


def test_cropping_leaves_out_the_sides() -> None:
    image = np.zeros((4, 16, 3), np.uint8)
    image[:, 5:11] = 200
    target = np.zeros((4, 6, 3), np.int8)
    form = _form("bgr", crop="center", mean=(0.0,) * 3, scale=(0.5,) * 3)
    Preprocessor(form, 0)(image, target)
    assert (target == 100).all()
