"""The model that `tutelage.load` returns, which classifies images one by one."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from tutelage.app.classify import main
from tutelage.app.image_classifier import ImageClassifier
from tutelage.app.outputs.by_uri import open_output
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.frames import SourceError
from tutelage.board.model_parts import ModelError

pytestmark = pytest.mark.usefixtures("emulation")


@pytest.fixture
def bags(repo_root: Path) -> Path:
    return repo_root / "app" / "demo" / "images" / "Bag"


def test_its_classes_are_the_applications(bags: Path, tmp_path: Path) -> None:
    expected = tmp_path / "application.csv"
    command = ["--source", str(bags), "--output", str(expected), "--quiet", "--top", "5"]
    assert main(command) == 0
    found = tmp_path / "loop.csv"
    with ImageClassifier() as net, open_source(bags) as source, open_output(found) as output:
        for frame in source:
            output.add(net.classify(frame))
    columns = ("index", "name", "label", "confidence")
    with expected.open() as first, found.open() as second:
        rows = [[{key: row[key] for key in columns} for row in csv.DictReader(file)]
                for file in (first, second)]  # fmt: skip
    assert rows[0] == rows[1] and len(rows[0]) == len(list(bags.iterdir()))


def test_a_path_and_its_pixels_are_the_same_image(bags: Path) -> None:
    path = min(bags.iterdir())
    image = cv2.imread(str(path))
    assert image is not None
    net = ImageClassifier(top=3)
    result = net.classify(path)
    assert result.label == "Bag" and result.confidence == result.top[0][1] > 0.5
    assert len(result.top) == 3 and result.frame.name == str(path)
    assert net.classify(str(path)).top == net.classify(image).top == result.top
    assert set(result.milliseconds) == {"preprocess", "infer", "postprocess", "total"}


def test_confidences_of_all_classes_add_up_to_one(bags: Path) -> None:
    net = ImageClassifier(top=1000)
    top = net.classify(min(bags.iterdir())).top
    assert sorted(label for label, _ in top) == sorted(net.labels)
    assert sum(confidence for _, confidence in top) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_the_bare_network(dtype: type[np.generic]) -> None:
    net = ImageClassifier()
    rng = np.random.default_rng(0)
    values: np.ndarray = rng.integers(-128, 128, (3, *net.input.dims[1:])).astype(np.int8)
    if dtype is np.float32:
        values = values * np.float32(2.0 ** -(net.input.fix_point or 0))
    outputs = net.run(values)
    assert outputs.shape == (3, len(net.labels)) and outputs.dtype == np.float32
    np.testing.assert_array_equal(net.run(values[1]), outputs[1])
    assert net.run(values[:0]).shape == (0, len(net.labels))
    with pytest.raises(ValueError, match="the model takes"):
        net.run(values[:, :5])


def test_the_engines_agree(bags: Path) -> None:
    images = sorted(bags.iterdir())[:3]
    fast, reference = (ImageClassifier(engine=name) for name in ("fast", "reference"))
    for path in images:
        assert fast.classify(path).top == reference.classify(path).top
    with pytest.raises(ModelError, match="engine 'quick' is not one of fast, reference"):
        ImageClassifier(engine="quick")
    ImageClassifier()  # after that error the default engine is used again


def test_an_engine_is_for_the_emulation(fake_board: Path, fake_model: Path) -> None:
    with pytest.raises(ModelError, match="engine 'fast' is for the emulation"):
        ImageClassifier(fake_model, engine="fast")
    net = ImageClassifier(fake_model)
    assert net.classify(np.zeros((9, 9, 3), np.uint8)).label in net.labels


def test_files_that_are_not_images(tmp_path: Path) -> None:
    net = ImageClassifier()
    with pytest.raises(SourceError, match=r"none\.png: No such file"):
        net.classify(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SourceError, match=r"text\.png: not an image"):
        net.classify(tmp_path / "text.png")
    for shape, dtype in (((4, 4), np.uint8), ((4, 4, 3), np.float32), ((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="an array must be uint8"):
            net.classify(np.zeros(shape, dtype))


def test_a_frame_that_cannot_be_read_keeps_its_place(bags: Path, tmp_path: Path) -> None:
    for name, data in (("a.png", min(bags.iterdir()).read_bytes()), ("b.png", b"no image")):
        (tmp_path / name).write_bytes(data)
    net = ImageClassifier()
    first, second = (net.classify(frame) for frame in open_source(tmp_path))
    assert first.label == "Bag" and first.error is None
    assert second.label is None and second.confidence is None
    assert second.error is not None and "not an image" in second.error


def test_wrong_use(tmp_path: Path, bags: Path) -> None:
    with pytest.raises(ModelError, match="no such file or directory"):
        ImageClassifier(tmp_path / "none")
    with pytest.raises(ValueError, match="top is 0"):
        ImageClassifier(top=0)
    net = ImageClassifier()
    net.close()
    net.close()
    for use in (lambda: net.classify(min(bags.iterdir())), lambda: net.run(np.zeros(1))):
        with pytest.raises(ModelError, match="demo: is closed"):
            use()
