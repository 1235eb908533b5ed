"""Untrusted model directories: what a model.toml may contain and name."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.core import model_package
from tutelage.core.images.input_form import (
    LARGEST_MEAN,
    LONGEST_SIDE,
    SCALES,
    FormError,
    InputForm,
    int8_table,
)
from tutelage.core.model_package import (
    Description,
    PackageError,
    check_files,
    distinct_labels,
    read_description,
    write_description,
)

DESCRIBED = """
[input]
width = 8
height = 8
colour = "rgb"
mean = [128]
scale = [0.0078125]
[output]
labels = ["a", "b"]
"""
NO_FILE = "0" * 64


def _description(folder: Path, text: str = DESCRIBED) -> Path:
    path = folder / "model.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _refused(words: str, folder: Path, text: str) -> None:
    with pytest.raises(PackageError, match=words) as caught:
        check_files(folder, read_description(_description(folder, text)).checksums)
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)


# -- written files are read back --------------------------------------------------------------

_FORMS = st.builds(
    InputForm,
    st.integers(1, LONGEST_SIDE), st.integers(1, LONGEST_SIDE), st.sampled_from(["rgb", "bgr"]),
    st.lists(st.floats(-LARGEST_MEAN, LARGEST_MEAN), min_size=3, max_size=3).map(tuple),
    st.lists(st.floats(*SCALES), min_size=3, max_size=3).map(tuple),
    st.sampled_from(["none", "center"]),
)  # fmt: skip
_TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5).filter(str.strip)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(
        Description, _FORMS, st.lists(_TEXTS, min_size=1).map(tuple),
        st.sampled_from(["softmax", "none"]), st.dictionaries(_TEXTS, st.floats(0, 1)),
        st.dictionaries(st.sampled_from(["a b", "c/d.onnx", "é"]), st.just("0aF" + "9" * 61)),
    )
)  # fmt: skip
def test_descriptions_are_read_back(tmp_path: Path, description: Description) -> None:
    path = tmp_path / "model.toml"
    write_description(path, description)
    assert read_description(path) == description


# -- [checksums] ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "/dev/zero", "../model.toml", "a/../../b", "..", ".", "", "a\\u0000b", "a\\nb"],
)
def test_names_that_lead_elsewhere_are_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    text = f'{DESCRIBED}[checksums]\n"{name}" = "{NO_FILE}"\n'
    _refused("does not name a file in the model's directory", tmp_path / "model", text)


def test_an_irregular_file_is_not_opened(tmp_path: Path) -> None:
    """Reading a pipe would wait, and a device has no end."""
    folder, outside = tmp_path / "model", tmp_path / "secret"
    (folder / "inside").mkdir(parents=True)
    outside.write_text("secret")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "link").symlink_to(outside)
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    (folder / "own pipe").symlink_to("pipe")
    for name, words in {
        "pipe": "pipe: not a regular file",
        "own pipe": "own pipe: not a regular file",
        "inside": "inside: not a regular file",
        "zero": "zero: a link out of the model directory",
        "link": "link: a link out of the model directory",
        "up/secret": "up/secret: a link out of the model directory",
        "loop": "loop: Too many levels of symbolic links",
        "none": "none: No such file",
        "pipe/x": "pipe/x: Not a directory",
    }.items():
        _refused(words, folder, f'{DESCRIBED}[checksums]\n"{name}" = "{NO_FILE}"\n')


def test_a_description_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.toml")
    with pytest.raises(PackageError, match=r"model\.toml: not a regular file"):
        read_description(tmp_path / "model.toml")


def test_files_inside_are_compared(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("sub/a")
    right = hashlib.sha256(b"abc").hexdigest()
    check_files(tmp_path, {"sub/a": right, "link": right.upper(), "./sub/a": right})
    with pytest.raises(PackageError, match=f"SHA-256 is {right}, model.toml says {NO_FILE}"):
        check_files(tmp_path, {"link": NO_FILE})
    _refused("'a' must be 64 hexadecimal digits", tmp_path, f"{DESCRIBED}[checksums]\na = 'abc'\n")


def test_files_without_an_end_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        with (tmp_path / name).open("wb") as file:
            file.truncate(3 << 30)  # takes no space on the disk

    def read(path: Path) -> str:
        assert path.name == "a"
        return NO_FILE

    monkeypatch.setattr(model_package, "sha256_of", read)
    with pytest.raises(PackageError, match="exceed 4 GiB"):
        check_files(tmp_path, {"a": NO_FILE, "b": NO_FILE})


# -- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("[128]", "[1e308]", r"\[input\] mean is 1e\+308; its magnitude must be 0 to 1e\+06"),
        ("[128]", "[-1e7]", "mean is -1e"),
        ("[128]", "[1, 2]", "mean has 2 numbers for 3 channels"),
        ("[128]", "[inf]", "mean must be finite"),
        ("[0.0078125]", "[1e300]", r"scale is 1e\+300; its magnitude must be 1e-09 to 1e\+06"),
        ("[0.0078125]", "[1e-300]", "scale is 1e-300"),
        ("[0.0078125]", "[0.0]", "scale is 0;"),
        ("[0.0078125]", "[1, 1, nan]", "scale must be finite"),
        ("width = 8", "width = 0", "width is 0; it must be 1 to 8192"),
        ("width = 8", "width = -3", "width is -3"),
        ("height = 8", "height = 4000000000", "height is 4000000000"),
        ('"rgb"', '"r\\ngb"', r"colour is 'r\\ngb'; it must be one of grey, rgb, bgr"),
    ],
)
def test_numbers_that_no_image_can_have(old: str, new: str, words: str, tmp_path: Path) -> None:
    assert old in DESCRIBED
    _refused(words, tmp_path, DESCRIBED.replace(old, new, 1))


@given(
    mean=st.floats(-LARGEST_MEAN, LARGEST_MEAN),
    scale=st.floats(*SCALES) | st.floats(-SCALES[1], -SCALES[0]),
    fix_point=st.integers(-3000, 3000),
)
def test_every_form_has_a_table_of_numbers(mean: float, scale: float, fix_point: int) -> None:
    table = int8_table(InputForm(1, 1, "grey", (mean,), (scale,)), fix_point)[:, 0].astype(int)
    steps = table[1:] - table[:-1]
    assert (steps >= 0).all() if scale > 0 else (steps <= 0).all()


def test_forms_that_make_no_sense() -> None:
    with pytest.raises(FormError, match="colour is 'cmyk'"):
        InputForm(8, 8, "cmyk")
    with pytest.raises(FormError, match="crop is 'left'"):
        InputForm(8, 8, "rgb", crop="left")
    assert InputForm(8, 8, "rgb") == InputForm(8, 8, "rgb", (0.0,), (1.0, 1.0, 1.0))
    assert math.isfinite(InputForm(8, 8, "grey", (1,), (2,)).mean[0])


# -- labels -----------------------------------------------------------------------------------


def test_empty_labels_are_refused_with_their_numbers(tmp_path: Path) -> None:
    for labels, numbers in {
        '["a", "a", ""]': "class 2 ",
        '["", " ", "\\t", "", "b"]': "class 0, 1, 2 and 1 more ",
    }.items():
        text = DESCRIBED.replace('["a", "b"]', labels)
        _refused(rf"\[output\] labels: {numbers}\(from 0\) has an empty label", tmp_path, text)


def test_equal_labels_of_several_classes_are_distinguished() -> None:
    assert distinct_labels(["crane", "cat", "crane"]) == ("crane (0)", "cat", "crane (2)")
    assert distinct_labels(["a", "a", "a (1)"]) == ("a (0)", "a (1) (1)", "a (1) (2)")
    assert distinct_labels(["a", "b"]) == ("a", "b")


@given(st.lists(st.sampled_from(["a", "b", "a (0)", "a (1)", "a (1) (2)"]), max_size=8))
def test_distinct_labels_are_distinct(labels: list[str]) -> None:
    found = distinct_labels(labels)
    assert len(set(found)) == len(labels)
    assert all(new.startswith(old) for new, old in zip(found, labels, strict=True))
