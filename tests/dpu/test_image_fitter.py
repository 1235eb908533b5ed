"""Every user of images converts them to a network's input in the same way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.images.decoder import read_image
from tutelage.core.images.fitter import ImageFitter, center_crop
from tutelage.core.images.input_form import InputForm
from tutelage.core.images.preprocessor import Preprocessor as AppPreprocessor
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.inspect.samples import Samples, image_form

FORM = InputForm(28, 28, "rgb", (33.0, 34.0, 35.0), (1 / 64, 1 / 64, 1 / 64), "center")
SIZES = [(28, 28), (480, 640), (61, 57), (20, 90), (112, 56)]


def test_center_crop_takes_the_largest_middle_part() -> None:
    image = np.arange(10 * 30).reshape(10, 30, 1)
    np.testing.assert_array_equal(center_crop(image, 5, 5), image[:, 10:20])
    np.testing.assert_array_equal(center_crop(image, 30, 5), image[2:7])
    np.testing.assert_array_equal(center_crop(image, 3, 1), image)
    assert center_crop(image, 1, 1000).shape == (10, 1, 1)


@pytest.mark.parametrize("colour, channels", [("grey", 1), ("rgb", 3), ("bgr", 3)])
def test_the_result_has_the_models_form(colour: str, channels: int) -> None:
    fit = ImageFitter(InputForm(6, 4, colour, (), ()))
    for size in ((4, 6), (40, 60), (1, 1), (9, 1)):
        image = np.full((*size, 3), (10, 20, 30), np.uint8)
        fitted = fit(image)
        assert fitted.shape == (4, 6, channels) and fitted.dtype == np.uint8
        wanted = {"rgb": [30, 20, 10], "bgr": [10, 20, 30], "grey": 22}[colour]
        assert (fitted == wanted).all(), (size, colour)


@pytest.mark.parametrize("size", SIZES)
def test_samples_training_and_the_board_see_the_same(size: tuple[int, int], tmp_path: Path) -> None:
    """They used to differ for images that are reduced by more than two."""
    noise = np.random.default_rng(0).integers(0, 160, (*size, 3), np.uint8)  # none saturates
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), cv2.blur(noise, (3, 3)))
    target = np.empty((28, 28, 3), np.int8)
    AppPreprocessor(FORM, 6)(np.asarray(cv2.imread(str(path))), target)

    network = CompiledModel("net")
    network.output(network.move("y", "relu-fix", network.input("x", (1, 28, 28, 3), 6), {}))
    program = load_engine(network.finish()).program
    sample = Samples(program, [str(path)], lambda shape: FORM)[0:1][0][0]
    np.testing.assert_array_equal(sample * 64, target)

    data = pytest.importorskip("tutelage.host.train.data.stored_images", reason="needs PyTorch")
    picture = read_image(path)
    learnt = data.fit_part(picture, InputForm(28, 28, "rgb", crop="center"))
    np.testing.assert_array_equal((learnt - np.array(FORM.mean)), target)


def _halved(image: np.ndarray, width: int, height: int) -> np.ndarray:
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * rows, : 2 * columns]
        image = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
    return image


@given(
    model=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    factors=st.tuples(*[st.sampled_from([0.5, 1, 1.25, 1.5, 1.875, 2, 2.5, 3, 3.7, 5.0])] * 2),
    coarse=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_its_pixels_are_those_that_opencv_averages_from_bytes(
    model: tuple[int, int], factors: tuple[float, float], coarse: bool, seed: int
) -> None:
    """Also if many means end in a half: networks were trained with these pixels."""
    (width, height), (across, down) = model, factors
    shape = (max(1, round(height * down)), max(1, round(width * across)), 3)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if coarse:
        image &= 0x80
    found = ImageFitter(InputForm(width, height, "bgr"))(image)
    halved = _halved(image, width, height)
    smaller = halved.shape[0] > height or halved.shape[1] > width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    expected = cv2.resize(halved, (width, height), interpolation=method)
    np.testing.assert_array_equal(found, expected)


def test_large_images_of_many_sizes_leave_no_buffers() -> None:
    fit = ImageFitter(InputForm(28, 28, "bgr", (), ()))
    for side in range(4200, 4240, 4):
        fit(np.zeros((side, side, 3), np.uint8))
    assert max(buffer.nbytes for buffer in fit._kept.values()) <= 12 << 20


def test_the_form_for_images_of_one_mean(tmp_path: Path) -> None:
    form = image_form(tmp_path / "net.xmodel", (4, 6, 3), "rgb", [7.0], None)
    assert form == InputForm(6, 4, "rgb", (7.0,) * 3, (1.0,) * 3, "none")
