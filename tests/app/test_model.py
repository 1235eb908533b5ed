from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tutelage.app.model import load_classifier, override
from tutelage.board.model_parts import ModelError

WHOLE = """
[input]
width = 8
height = 8
colour = "rgb"
mean = [120.0, 110.0, 100]
scale = [0.02]
crop = "center"
[output]
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "nine"]
[provenance]
dataset = "made up"
accuracy = 0.5
"""


@pytest.fixture
def folder(fake_board: Path, fake_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "net"
    folder.mkdir()
    fake_model.rename(folder / "model.xmodel")
    (folder / "model.toml").write_text(WHOLE)
    return folder


def test_a_model_directory(folder: Path) -> None:
    classifier = load_classifier(folder)
    assert classifier.name == "net"
    assert classifier.form.mean == (120.0, 110.0, 100.0)
    assert classifier.form.scale == (0.02, 0.02, 0.02)  # one number stands for all channels
    assert (classifier.form.colour, classifier.form.crop) == ("rgb", "center")
    assert classifier.labels[9] == "nine" and classifier.activation == "softmax"
    assert classifier.provenance == {"dataset": "made up", "accuracy": 0.5}


@pytest.mark.parametrize("name", ["model.xmodel", "model.toml"])
def test_its_files_identify_the_directory(folder: Path, name: str) -> None:
    assert load_classifier(folder / name).labels[9] == "nine"


def test_a_bare_file_has_its_form_and_labels(fake_board: Path, fake_model: Path) -> None:
    classifier = load_classifier(fake_model)
    form = classifier.form
    assert (form.width, form.height, form.colour, form.crop) == (8, 8, "bgr", "none")
    assert form.mean == (0.0, 0.0, 0.0) and form.scale == (1.0, 1.0, 1.0)
    assert classifier.labels == tuple("0123456789") and classifier.activation == "softmax"


def test_a_bare_file_that_ends_in_softmax_needs_none(fake_board: Path, fake_model: Path) -> None:
    path = fake_model.rename(fake_model.with_name("cpu.xmodel"))
    assert load_classifier(path).activation == "none"


def test_checksums_are_checked(folder: Path) -> None:
    right = hashlib.sha256((folder / "model.xmodel").read_bytes()).hexdigest()
    (folder / "model.toml").write_text(WHOLE + f'[checksums]\n"model.xmodel" = "{right}"\n')
    load_classifier(folder)
    (folder / "model.xmodel").write_bytes(b"\x0a\x04Fake")
    with pytest.raises(ModelError, match=r"model.xmodel: SHA-256 is .* model.toml says"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[input]", "[inputs]", "unknown table or key 'inputs'"),
        ("crop =", "crops =", r"unknown key 'crops' in \[input\]; expected one of width, height"),
        ("width = 8", 'width = "8"', r"\[input\] width must be a whole number"),
        ("width = 8", "width = true", r"\[input\] width must be a whole number"),
        ("width = 8", "", r"width is missing in \[input\]"),
        ("width = 8", "width = 9", r"says 8x9x3 \(height, width, channels\), model.xmodel takes"),
        ('"rgb"', '"RGB"', "'RGB'; it must be one of grey, rgb, bgr"),
        ('"rgb"', '"grey"', "mean has 3 numbers for 1 channel"),
        ('"center"', '"centre"', "must be one of none, center"),
        ("[0.02]", '["0.02"]', r"\[input\] scale must be numbers"),
        ("[0.02]", "[nan]", r"\[input\] scale must be finite"),
        ('"nine"]', "9]", r"\[output\] labels must be strings"),
        (', "nine"]', "]", "9 labels, the model has 10 outputs"),
        ("[output]", '[output]\nactivation = "relu"', "must be one of softmax, sigmoid, none"),
        ("[output]", "output = 1\n[x]", r"unknown key 'output' in \[input\]"),
        (
            "\n[input]",
            "checksums = 1\n[input]",
            r"checksums must be a table, written \[checksums\]",
        ),
        ("[output]", "[output", "not a TOML file"),
    ],
)
def test_mistakes_are_one_clear_line(folder: Path, old: str, new: str, message: str) -> None:
    assert old in WHOLE
    (folder / "model.toml").write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as caught:
        load_classifier(folder)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


def test_missing_files_are_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such file or directory"):
        load_classifier(folder.parent / "nowhere")
    (folder / "model.xmodel").unlink()
    with pytest.raises(ModelError, match=r"model.xmodel: no such file"):
        load_classifier(folder)
    (folder / "model.toml").unlink()
    with pytest.raises(ModelError, match=r"model.toml: No such file"):
        load_classifier(folder)


def test_the_description_can_be_replaced(folder: Path) -> None:
    classifier = override(
        load_classifier(folder), labels=list("abcdefghij"), colour="bgr", mean=[1.0], crop="none"
    )
    assert classifier.labels[0] == "a"
    assert (classifier.form.colour, classifier.form.crop) == ("bgr", "none")
    assert classifier.form.mean == (1.0, 1.0, 1.0) and classifier.form.scale[0] == 0.02
    with pytest.raises(ModelError, match="takes 3 channels, grey has 1"):
        override(classifier, colour="grey")
    with pytest.raises(ModelError, match="mean has 2 numbers for 3 channels"):
        override(classifier, mean=[1.0, 2.0])
    with pytest.raises(ModelError, match="2 labels, the model has 10 outputs"):
        override(classifier, labels=["a", "b"])


def test_differences_from_model_toml_are_reported(folder: Path) -> None:
    """Training used the centre of each picture; these options differ from it."""
    classifier = load_classifier(folder)
    assert not classifier.notes
    assert not override(classifier, crop="center", mean=[120.0, 110.0, 100.0]).notes
    (line,) = override(classifier, crop="none", colour="bgr", scale=[0.5]).warnings
    assert line == (
        "net: colour bgr instead of rgb, scale 0.5 instead of 0.02, crop none instead of center: "
        "differs from model.toml, so the model gets other pixels than in training"
    )


def test_a_bare_file_leaves_its_form_open(fake_board: Path, fake_model: Path) -> None:
    classifier = load_classifier(fake_model)
    assert not classifier.warnings
    (line,) = classifier.notes
    assert line == (
        "net.xmodel has no model.toml, so the preprocessing in training is unknown; "
        "assumed: colour bgr, mean 0, scale 1, crop none (--colour, --mean, --scale, --crop "
        "change it)"
    )
    (line,) = override(classifier, colour="rgb", mean=[1.0, 2.0, 3.0], crop="none").notes
    assert "assumed: scale 1 (--scale change" in line
    given = override(classifier, colour="rgb", mean=[0.0], scale=[1.0], crop="none")
    assert not given.notes


def test_labels_that_several_classes_have(folder: Path) -> None:
    """Published lists of ImageNet's classes have two cranes and two maillots."""
    text = WHOLE.replace('"1"', '"crane"').replace('"7"', '"crane"')
    (folder / "model.toml").write_text(text)
    classifier = load_classifier(folder)
    assert classifier.labels[1] == "crane (1)" and classifier.labels[7] == "crane (7)"
    (line,) = classifier.warnings
    assert line == (
        "net: 2 classes share their labels with others and are shown with the class number: "
        "crane (1), crane (7)"
    )
    many = override(classifier, labels=["a"] * 5 + ["b"] * 5)
    assert many.labels[9] == "b (9)" and "a (0), a (1), a (2), a (3) and 6 more" in many.warnings[0]
    assert not override(classifier, labels=list("abcdefghij")).warnings
    with pytest.raises(ModelError, match=r"labels: class 3 \(from 0\) has an empty label"):
        override(classifier, labels=list("abc efghij"))


@pytest.mark.parametrize("name", ["/dev/zero", "../net.xmodel", "pipe"])
def test_checksums_of_files_outside_the_model(folder: Path, name: str) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "model.toml").write_text(WHOLE + f'[checksums]\n"{name}" = "{"0" * 64}"\n')
    with pytest.raises(ModelError, match=r"model's directory|not a regular file"):
        load_classifier(folder)


@pytest.mark.parametrize("name", ["mean", "scale"])
def test_numbers_beyond_all_pictures(folder: Path, name: str) -> None:
    classifier = load_classifier(folder)
    with pytest.raises(ModelError, match=rf"net: {name} is 1e\+308; its magnitude must be"):
        override(classifier, **{name: [1e308]})  # type: ignore[arg-type]
