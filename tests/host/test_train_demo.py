"""The demo model: its training script on a few real images, and the shipped files themselves."""

from __future__ import annotations

import gzip
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tutelage.app.model import load_classifier

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tutelage.host.export.model_directory import ExportError  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train import demo as train_demo  # noqa: E402
from tutelage.host.train.data import DataSet  # noqa: E402
from tutelage.host.train.data.formats.idx import FASHION  # noqa: E402
from tutelage.host.train.run_files import CHECKPOINT, STUDENT  # noqa: E402


def _shipped(repo_root: Path) -> tuple[Any, Any]:
    """The demo's images (300, 1, 28, 28) and labels."""
    paths = sorted((repo_root / "app" / "demo" / "images").glob("*/*.png"))
    images = np.stack([np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in paths])
    labels = torch.tensor([FASHION.index(path.parent.name) for path in paths])
    return torch.from_numpy(images)[:, None], labels


def _write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def data(repo_root: Path, tmp_path: Path) -> Path:
    """The shipped images as the four IDX files of a data set."""
    images, labels = _shipped(repo_root)
    folder = tmp_path / "fashion"
    folder.mkdir()
    for split in ("train", "t10k"):
        _write_idx(folder / f"{split}-images-idx3-ubyte.gz", images[:, 0].numpy())
        _write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels.numpy().astype(np.uint8))
    return folder


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["train_demo", *arguments])
    try:
        return train_demo.main()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_trains_quantises_and_writes_a_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, models = tmp_path / "model", tmp_path / "models"
    arguments = ["--data", str(data), "--output", str(out), "--runs", str(tmp_path / "runs")]
    arguments += ["--models", str(models)]
    assert _main(monkeypatch, *arguments, "--epochs", "3") == 0
    classifier = load_classifier(out)
    provenance = classifier.provenance
    assert classifier.labels == FASHION and provenance["images"] == 300
    assert provenance["accuracy"] == provenance["accuracy_int8"]
    assert sorted(path.name for path in models.iterdir()) == [
        "README.md", "log.csv", "student.safetensors",
    ]  # fmt: skip
    assert len(list((out / "images").rglob("*.png"))) == 300


def test_without_its_data_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--output", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert _main(monkeypatch, "--data", str(tmp_path), *places) == 2
    error = capsys.readouterr().err
    assert "train-images-idx3-ubyte" in error and error.count("\n") == 1


def test_wrong_use_and_failures_are_reported_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data), "--runs", str(tmp_path / "runs")]
    assert _main(monkeypatch, *arguments, "--epochs", "-1") == 2
    assert "epochs" in capsys.readouterr().err
    monkeypatch.setattr(train_demo, "train_all", lambda *args: None)
    monkeypatch.setattr(train_demo, "write_model", _failing)
    assert _main(monkeypatch, *arguments) == 1
    assert capsys.readouterr().err == "train_demo: no\n"


@pytest.mark.parametrize("file", [STUDENT, CHECKPOINT])
def test_another_seed_does_not_take_the_runs_of_the_first(
    file: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    runs = tmp_path / "runs"
    for name, config in train_demo.configurations(runs, data, 0, 1).items():
        (runs / name).mkdir(parents=True)
        checkpoint.save(runs / name / file, {"student": {}}, {"config": asdict(config)})
    arguments = ["--data", str(data), "--runs", str(runs), "--output", str(tmp_path / "out")]
    assert _main(monkeypatch, *arguments, "--epochs", "1", "--seed", "1") == 2
    error = capsys.readouterr().err
    assert "runs/teacher: a run with another seed: give another --runs" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def _failing(*args: Any) -> Any:
    raise ExportError("no")


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_the_shipped_accuracy_is_that_of_the_shipped_file(repo_root: Path, engine: str) -> None:
    folder = repo_root / "app" / "demo"
    images, labels = _shipped(repo_root)
    data = DataSet(images, labels, FASHION)
    scores = train_demo.run_xmodel(folder / "model.xmodel", data, engine)
    measured = round(train_demo.accuracy(scores, labels), 2)
    assert measured == load_classifier(folder).provenance["accuracy_images"]
