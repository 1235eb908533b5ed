"""ImageNet's mean and std through all stages: data set, student, model.toml, application, runner.

Expected values are computed here from the published figures alone, in fractions.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch

from tutelage.app.model import load_classifier
from tutelage.app.pipeline.job import FrameJob
from tutelage.app.pipeline.lane import Lane
from tutelage.app.sources.frames import Frame
from tutelage.core.model_package import DESCRIPTION
from tutelage.core.toml_file import read_toml
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.export.model_directory import export, load_student, read_state
from tutelage.host.train.config import make_config
from tutelage.host.train.loop import STUDENT, train
from tutelage.host.train.run_data import load_split

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT, WIDTH = 16, 24


def _all_levels(seed: int) -> np.ndarray:
    """An RGB picture with every one of the 256 values in each channel, at different places."""
    rng = np.random.default_rng(seed)
    values = np.arange(HEIGHT * WIDTH) % 256
    channels = [rng.permutation(values) for _ in MEAN]
    return np.stack(channels, 1).reshape(HEIGHT, WIDTH, 3).astype(np.uint8)


def _in_units_of_the_step(level: int, channel: int, fix_point: int) -> Fraction:
    mean, std = (Fraction(str(values[channel])) for values in (MEAN, STD))
    return (Fraction(level, 255) - mean) / std * 2**fix_point


def _expected(fix_point: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the int8 value of each level and channel, and a mask of those too close to a tie."""
    exact = [[_in_units_of_the_step(v, c, fix_point) for c in range(3)] for v in range(256)]
    rounded = [[floor(x + Fraction(1, 2)) for x in row] for row in exact]
    ties = [[abs((x + Fraction(1, 2)) % 1) < Fraction(1, 10**4) for x in row] for row in exact]
    return np.array(rounded), np.array(ties)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained and quantised, with a model directory for the emulator beside it."""
    folder = tmp_path_factory.mktemp("chain")
    for number in range(20):
        path = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), _all_levels(number)[..., ::-1])
    student = {"network": "densenet-tiny"}
    common = {
        "data": {
            "kind": "folder", "path": str(folder / "photos"), "size": [HEIGHT, WIDTH],
            "mean": list(MEAN), "std": list(STD),
        },
        "training": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    train(make_config({"method": "float", "student": student, **common}), folder / "float")
    student["weights"] = str(folder / "float" / STUDENT)
    train(make_config({"method": "ptq", "student": student, **common}), folder / "ptq")
    export(folder / "ptq", folder / "model", images=0)
    compile_model(plan_compile(folder / "model", None, CompileOptions("emulator")), print)
    return folder


def test_no_pixel_is_clipped_and_each_is_rounded_once(run: Path) -> None:
    table = read_toml(run / "model" / DESCRIPTION)
    assert (table["input"]["height"], table["input"]["width"]) == (HEIGHT, WIDTH)
    np.testing.assert_allclose(table["input"]["mean"], [255 * m for m in MEAN], rtol=1e-12)
    np.testing.assert_allclose(table["input"]["scale"], [1 / (255 * s) for s in STD], rtol=1e-12)

    point = table["provenance"]["input_fix_point"]
    expected, ties = _expected(point)
    assert expected.min() >= -128 and expected.max() <= 127
    assert _expected(point + 1)[0].max() > 127  # no finer step has room for all

    config, state = read_state(run / "ptq" / STUDENT)
    data = load_split(config, "test")
    student = load_student(run / "ptq" / STUDENT, config, state, data).student
    assert student.fix_points().activations[student.images.name] == point

    lane = Lane(load_classifier(run / "model"))
    lane.make_runner()
    for number, path in enumerate(data.files):
        picture = cv2.imread(str(path))
        assert picture is not None
        lane.start(FrameJob(Frame(0, path.name, picture), 0.0, 0.0))
        assert lane._runner is not None
        found = lane._runner.input(0).copy()
        finished = lane.finish_oldest()
        assert finished is not None and not isinstance(finished[1], Exception)
        rgb = np.asarray(picture[..., ::-1])
        wanted, unsure = expected[rgb, range(3)], ties[rgb, range(3)]
        assert (np.abs(found - wanted)[unsure] <= 1).all()
        np.testing.assert_array_equal(found[~unsure], wanted[~unsure])
        with torch.no_grad():
            quantised = student.images.quantise(data.inputs(slice(number, number + 1)), point)
        student_sees = (quantised[0] * 2.0**point).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(student_sees, found)
