"""The walk of image folders: found images, skipped files, and labels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.__main__ import main
from tutelage.app.sources.by_uri import open_source
from tutelage.core.images.image_files import IMAGE_SUFFIXES, broken_line, find_images, label_of
from tutelage.core.images.input_form import InputForm
from tutelage.dpu.inspect.samples import Samples


def _write(path: Path, content: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        content = cv2.imencode(".png", np.full((28, 28, 3), 90, np.uint8))[1].tobytes()
    path.write_bytes(content)
    return path


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """A folder from a telephone and a Mac, with 5 images."""
    root = tmp_path / "photos"
    for name in ("Bag/a.png", "Bag/b.JPG", "Bag/more/c.jfif", "Coat/a.png", "Coat/Bag/d.png"):
        _write(root / name)
    for name in ("Bag/._a.png", "Bag/.hidden/a.png", "Bag/.ipynb_checkpoints/a-checkpoint.png",
                 "__MACOSX/Bag/._a.png", "__MACOSX/Bag/a.png"):  # fmt: skip
        _write(root / name)
    for name in ("Bag/1.HEIC", "Coat/2.heic", "notes.txt", "Bag/.DS_Store", "no_suffix",
                 "odd.\x1b[31m"):  # fmt: skip
        _write(root / name, b"x")
    (root / "Coat" / "round").symlink_to(root)
    (root / "outside").symlink_to(tmp_path)
    return root


IMAGES = ["Bag/a.png", "Bag/b.JPG", "Bag/more/c.jfif", "Coat/Bag/d.png", "Coat/a.png"]
SKIPPED = {".heic": 2, ".txt": 1, "hidden": 1, "behind a link to a folder": 2,
           "with another suffix or none": 2}  # fmt: skip


def test_the_walk(untidy: Path) -> None:
    found = find_images(untidy)
    assert [str(path.relative_to(untidy)) for path in found.images] == IMAGES
    assert found.skipped == SKIPPED
    assert found.report() == (
        "skipped 8 files: 2 .heic (not read; convert to JPEG), 2 behind a link to a folder, "
        "2 with another suffix or none, 1 .txt, 1 hidden"
    )


def test_links_to_files_count_and_blocking_files_do_not(tmp_path: Path) -> None:
    real = _write(tmp_path / "elsewhere" / "real.png")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").symlink_to(real)
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    found = find_images(folder)
    assert [path.name for path in found.images] == ["a.png", "gone.png", "loop.png"]
    assert found.skipped == {"not regular files": 2}


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    _write(tmp_path / "a.png")
    (tmp_path / "x").mkdir(mode=0)
    assert find_images(tmp_path).skipped == {"in an unreadable folder: Permission denied": 1}
    with pytest.raises(OSError):
        find_images(tmp_path / "x")


def test_every_suffix_is_taken_in_any_case(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        _write(tmp_path / f"a{suffix.upper()}")
    assert len(find_images(tmp_path).images) == len(IMAGE_SUFFIXES) == len(set(IMAGE_SUFFIXES))


@given(st.lists(st.sampled_from("abcd"), max_size=4), st.sets(st.sampled_from("abcd")))
def test_the_outermost_folder_that_is_a_label_counts(folders: list[str], labels: set[str]) -> None:
    label = label_of(folders, labels)
    known = [name for name in folders if name in labels]
    assert label == (known[0] if known else None)


def test_broken_images_are_named_up_to_a_bound() -> None:
    assert broken_line([]) == ""
    assert broken_line(["a.png: empty"]) == "left out 1 broken image: a.png: empty"
    many = broken_line([f"{i}: empty" for i in range(12)])
    assert many.startswith("left out 12 broken images: 0: empty; ") and many.endswith("and 7 more")


def _inspected(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", str(model), "--images", str(images), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_training_bench_inspect_and_the_application_see_the_same(
    untidy: Path,
    demo_model: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = open_source(str(untidy))
    frames = list(source)
    assert [frame.name for frame in frames] == IMAGES
    labels = [label_of(frame.folders, ("Bag", "Coat")) for frame in frames]
    assert labels == ["Bag", "Bag", "Bag", "Coat", "Coat"]
    assert source.report() == {"skipped": SKIPPED}
    assert source.warnings() == [f"{untidy}: {find_images(untidy).report()}"]

    facts = _inspected(demo_model, untidy, capsys)
    assert facts["images"] == 5
    assert facts["notes"][-1] == f"{untidy}: {find_images(untidy).report()}"

    data = pytest.importorskip("tutelage.host.train.data", reason="needs PyTorch")
    read = data.load("folder", untidy, "train")
    assert read.classes == ("Bag", "Coat")
    assert caplog.messages == [f"{untidy}: {find_images(untidy).report()}"]
    found = {
        str(path.relative_to(untidy)): part.classes[label]
        for part in (read, data.load("folder", untidy, "test"))
        for path, label in zip(part.files, part.labels.tolist(), strict=True)
    }
    assert found == dict(zip(IMAGES, labels, strict=True))

    from tutelage.host.bench.subject import Subject, load_images

    form = InputForm(28, 28, "grey", (0.0,), (1.0,))
    subject = Subject("net", untidy, form, ("Bag", "Coat"), "", None, None, None)
    images = load_images(subject, str(untidy), 0)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert subject.notes == [f"{untidy}: {find_images(untidy).report()}"]


def test_inspect_and_bench_leave_out_broken_images(
    untidy: Path, demo_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(untidy / "Bag" / "a.png", b"")
    facts = _inspected(demo_model, untidy, capsys)
    line = f"left out 1 broken image: {untidy}/Bag/a.png: file is empty"
    assert facts["images"] == 4 and facts["notes"][-1] == line

    pytest.importorskip("torch", reason="needs PyTorch")
    from tutelage.host.bench.subject import BenchUsageError, Subject, load_images

    form = InputForm(28, 28, "grey", (0.0,), (1.0,))
    subject = Subject("net", untidy, form, ("Bag", "Coat"), "", None, None, None)
    images = load_images(subject, str(untidy), 0)
    assert images.labels.tolist() == [0, 0, 1, 1] and subject.notes[1] == f"{untidy}: {line}"
    for name in IMAGES:
        _write(untidy / name, b"")
    with pytest.raises(BenchUsageError, match="left out 5 broken images"):
        load_images(subject, str(untidy), 0)
    assert main(["inspect", str(demo_model), "--images", str(untidy)]) == 2
    error = capsys.readouterr().err
    assert "a.png: file is empty; the other 4 neither" in error and error.count("\n") == 1


def test_samples_keep_slices(untidy: Path, demo_model: Path) -> None:
    from tutelage.dpu.engine.reference import load_engine

    form = InputForm(28, 28, "grey", (0.0,), (1.0,))
    samples = Samples(load_engine(demo_model).program, [str(untidy)], lambda shape: form)
    assert len(samples) == samples.read == 5
    assert [len(arrays[0]) for arrays in samples.batches(2)] == [2, 2, 1]
    assert samples[1:3][0].shape == (2, 28, 28, 1)
