"""One way from an image to a network's input, whoever asks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

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
    """Where an image is made smaller by more than two, they once did not."""
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


def test_large_images_of_many_sizes_leave_no_buffers() -> None:
    fit = ImageFitter(InputForm(28, 28, "bgr", (), ()))
    for side in range(4200, 4240, 4):
        fit(np.zeros((side, side, 3), np.uint8))
    assert max(buffer.nbytes for buffer in fit._halves.values()) <= 12 << 20


def test_the_form_for_images_of_one_mean(tmp_path: Path) -> None:
    form = image_form(tmp_path / "net.xmodel", (4, 6, 3), "rgb", [7.0], None)
    assert form == InputForm(6, 4, "rgb", (7.0,) * 3, (1.0,) * 3, "none")
