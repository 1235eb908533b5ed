"""Training, export, bench and the application see the same pixels: image files in, classes out."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch

from tutelage.app.classify import main as classify
from tutelage.app.model import load_classifier
from tutelage.host.bench.subject import load_subject
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.export.model_directory import export, load_student, read_state
from tutelage.host.train.config import make_config
from tutelage.host.train.data import DataSet
from tutelage.host.train.evaluation import accuracy
from tutelage.host.train.loop import STUDENT, load_data, train

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CLASSES = ("front", "tilted")


def wide_photos(folder: Path) -> Path:
    """Rings in 16:9 pictures: stretched to a square, a frontal ring looks tilted."""
    rng = np.random.default_rng(7)
    for name, squeeze in zip(CLASSES, (1.0, 0.56), strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(60):
            image = np.full((90, 160, 3), rng.integers(90, 160), np.uint8)
            image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
            radius = int(rng.integers(20, 34))
            centre = 80 + int(rng.integers(-6, 7)), 45 + int(rng.integers(-6, 7))
            colour = tuple(int(value) for value in rng.integers(170, 256, 3))
            axes = int(radius * squeeze), radius
            cv2.ellipse(image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
            # JPEG and PNG: each by its own decoder.
            cv2.imwrite(str(folder / name / f"{number:03d}{('.png', '.jpg')[number % 2]}"), image)
    return folder


def wide_shards(folder: Path) -> Path:
    """The same pictures as members of .tar files."""
    photos, shards = wide_photos(folder / "photos"), folder / "shards"
    shards.mkdir()
    (shards / "classnames.txt").write_text("\n".join(CLASSES))
    for label, name in enumerate(CLASSES):
        with tarfile.open(shards / f"{label}.tar", "w") as archive:
            for path in sorted((photos / name).iterdir()):
                archive.add(path, f"{label}{path.stem}{path.suffix}")
                member = tarfile.TarInfo(f"{label}{path.stem}.cls")
                member.size = 1
                archive.addfile(member, io.BytesIO(b"%d" % label))
    return shards


def small_photos(folder: Path) -> Path:
    """Colour pictures of the network's own size, which nothing crops."""
    rng = np.random.default_rng(3)
    for channel, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            image = rng.integers(0, 160, (20, 24, 3), np.uint8)
            image[..., 2 * channel] += 60
            cv2.imwrite(str(folder / name / f"{number:03d}.png"), image)
    return folder


def grey_idx(folder: Path) -> Path:
    """MNIST's files with bright and dark squares."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    for split, count in (("train", 64), ("t10k", 40)):
        labels = rng.integers(0, 2, count).astype(np.uint8)
        images = rng.integers(0, 120, (count, 28, 28)).astype(np.uint8)
        images[labels == 1, 8:20, 8:20] += 130
        labels[:2] = 0, 1
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return folder


@dataclass(frozen=True)
class Trained:
    """A quantised run and its data set."""

    run: Path
    kind: str
    data: DataSet
    student: torch.nn.Module


def _trained(folder: Path, data: dict[str, Any]) -> Trained:
    common: dict[str, Any] = {"data": data, "training": {"epochs": 8, "batch_size": 16, "lr": 0.05}}
    network = {"network": "densenet-tiny"}
    train(make_config({"method": "float", "student": network, **common}), folder / "float")
    network["weights"] = str(folder / "float" / STUDENT)
    train(make_config({"method": "ptq", "student": network, **common}), folder / "ptq")
    path = folder / "ptq" / STUDENT
    config, state = read_state(path)
    _, test = load_data(config)
    return Trained(
        folder / "ptq", data["kind"], test, load_student(path, config, state, test).student
    )


MAKERS: dict[str, Any] = {
    "wide": (wide_photos, {"kind": "folder", "size": 24}),
    "wide, ImageNet": (wide_photos, {"kind": "folder", "size": 24, **IMAGENET}),
    "oblong, streamed": (
        wide_photos,
        {"kind": "folder", "size": [20, 36], "in_memory_mib": 0, "workers": 0},
    ),
    "shards": (wide_shards, {"kind": "webdataset", "size": [20, 36]}),
    "own size": (small_photos, {"kind": "folder", "mean": [0.1], "std": [0.9]}),
    "grey": (grey_idx, {"kind": "idx"}),
    "grey, 0..1": (grey_idx, {"kind": "idx", "mean": [0.0], "std": [1.0]}),
}


SLOW = {"wide, ImageNet", "grey, 0..1", "oblong, streamed", "shards"}
"""Forms that differ from another in mean and std or size alone, or in where the pictures are."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MAKERS],
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    make, table = MAKERS[request.param]
    folder = tmp_path_factory.mktemp("run")
    return _trained(folder, {**table, "path": str(make(folder / "data"))})


def _files(trained: Trained, folder: Path) -> list[Path]:
    """Return the test set's own files, or else its images written as files in class folders."""
    if trained.data.files:
        return list(trained.data.files)
    files = []
    for index, (image, label) in enumerate(
        zip(trained.data.images, trained.data.labels, strict=True)
    ):
        path = folder / "pictures" / trained.data.classes[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image.permute(1, 2, 0).numpy()[..., ::-1])
        files.append(path)
    return files


def test_the_application_gives_each_file_the_class_that_training_gave_it(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = export(trained.run, tmp_path / "model", images=0)
    compile_model(plan_compile(tmp_path / "model", None, CompileOptions("emulator")), print)
    assert bool(trained.data.files) == (trained.kind == "folder")  # its own, not copies
    files = _files(trained, tmp_path)
    with torch.no_grad():
        wanted = trained.student(trained.data.inputs()).argmax(1).tolist()
    source = tmp_path / "test"
    for path in files:
        (source / path.parent.name).mkdir(parents=True, exist_ok=True)
        (source / path.parent.name / path.name).write_bytes(path.read_bytes())
    seen, report = tmp_path / "seen.jsonl", tmp_path / "run.json"
    arguments = ["--model", str(tmp_path / "model"), "--source", str(source), "--quiet"]
    assert classify([*arguments, "--output", str(seen), "--json", str(report)]) == 0
    assert "classify:" not in capsys.readouterr().err
    records = [json.loads(line) for line in seen.read_text().splitlines()]
    found = {tuple(Path(record["name"]).parts[-2:]): record["label"] for record in records}
    assert found == {
        path.parts[-2:]: trained.data.classes[label]
        for path, label in zip(files, wanted, strict=True)
    }
    right = accuracy(trained.student, trained.data)
    figures = json.loads(report.read_text())["accuracy"]
    assert 100 * figures["correct"] / figures["labelled"] == pytest.approx(right)
    assert exported["accuracy_compared"] == right > 75


def test_every_form_is_the_data_sets(trained: Trained, tmp_path: Path) -> None:
    export(trained.run, tmp_path / "model")
    compile_model(plan_compile(tmp_path / "model", None, CompileOptions("emulator")), print)
    forms = [
        load_classifier(tmp_path / "model").form,
        load_subject(trained.run).form,
        load_subject(tmp_path / "model").form,
    ]
    assert forms == [trained.data.form] * 3
