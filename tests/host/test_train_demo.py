"""The demo model: its training script on a few real images, and the shipped files themselves."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.model import load_classifier
from dpu.engine import load_engine

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from host import train_demo  # noqa: E402


def _shipped(repo_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """The demo's images (300, 28, 28) and labels."""
    paths = sorted((repo_root / "app" / "demo" / "images").glob("*/*.png"))
    images = np.stack([np.asarray(cv2.imread(str(p), cv2.IMREAD_GRAYSCALE)) for p in paths])
    labels = [train_demo.LABELS.index(path.parent.name) for path in paths]
    return images, np.array(labels, np.uint8)


def _write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture
def data(repo_root: Path, tmp_path: Path) -> Path:
    """The shipped images as the four IDX files of a data set."""
    images, labels = _shipped(repo_root)
    for split in ("train", "t10k"):
        _write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
        _write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train_demo", *arguments])
    return train_demo.main()


def test_trains_quantises_and_writes_a_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    arguments = ["--data", str(data), "--output", str(out), "--epochs", "3"]
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        assert _main(monkeypatch, *arguments) == 0
    finally:
        torch.use_deterministic_algorithms(deterministic)
    classifier = load_classifier(out)
    provenance = classifier.provenance
    assert classifier.labels == train_demo.LABELS and provenance["images"] == 300
    # Three epochs of two steps each learn little; the 8-bit network must learn no less.
    assert abs(provenance["accuracy_float"] - provenance["accuracy_int8"]) < 15
    assert len(list((out / "images").rglob("*.png"))) == 300


def test_without_its_data_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "--data", str(tmp_path), "--output", str(tmp_path / "out")) == 2
    assert "train-images-idx3-ubyte.gz" in capsys.readouterr().err
    _write_idx(tmp_path / "train-images-idx3-ubyte.gz", np.zeros((2, 3, 3), np.uint8))
    cut = gzip.decompress((tmp_path / "train-images-idx3-ubyte.gz").read_bytes())[:-1]
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(cut))
    assert _main(monkeypatch, "--data", str(tmp_path), "--output", str(tmp_path / "out")) == 2
    assert "17 values instead of 18" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_the_shipped_accuracy_is_what_the_shipped_file_gives(repo_root: Path, engine: str) -> None:
    folder = repo_root / "app" / "demo"
    images, labels = _shipped(repo_root)
    scores = load_engine(folder / "model.xmodel", engine).run(train_demo.normalise(images))
    measured = round(train_demo.accuracy(scores, labels), 2)
    assert measured == load_classifier(folder).provenance["accuracy_images"]


def test_a_folded_network_is_the_same_function() -> None:
    torch.manual_seed(0)
    net = train_demo.FashionCNN(8, 4, 2, 8).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    x = torch.rand(2, 1, 28, 28)
    before = net(x)
    train_demo.fold(net)
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-4)
