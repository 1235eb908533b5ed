"""Each example runs, prints the documented output, and is short."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import pytest

pytest.importorskip("google.protobuf", reason="needs the emulation's packages")

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))
MOST_LINES = 39


@pytest.fixture
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Example:
    monkeypatch.chdir(tmp_path)
    return Example(monkeypatch, capsys)


class Example:
    """Runner of examples in an empty directory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, name: str, *arguments: str) -> str:
        """Run an example and return its output."""
        (path,) = (path for path in EXAMPLES if path.stem == name)
        self._monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return self._capsys.readouterr().out


def test_they_are_short_and_all_are_run() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    assert EXAMPLES
    for path in EXAMPLES:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= MOST_LINES and f'example("{path.stem}"' in tests, path


def test_classify_image(example: Example, repo_root: Path) -> None:
    assert example("classify_image").startswith("00018.png: Bag 99.6%, ")
    images = sorted((repo_root / "app/demo/images/Coat").iterdir())[:2]
    model = str(repo_root / "app/demo/model.xmodel")
    out = example("classify_image", *map(str, images), "--model", model)
    assert out.count("%") == 6 and out.count(" ms)") == 2


def test_classify_camera(example: Example, repo_root: Path) -> None:
    video = cv2.VideoWriter("walk.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 64))
    for path in sorted((repo_root / "app/demo/images/Bag").iterdir())[:4]:
        image = cv2.imread(str(path))
        assert image is not None
        video.write(cv2.resize(image, (64, 64)))
    video.release()
    assert example("classify_camera", "walk.mp4", "seen.mp4").count("Bag") == 4
    assert Path("seen.mp4").stat().st_size
    assert example("classify_camera", "seen.mp4", "seen.csv", "--frames", "3").count("Bag") == 3
    with Path("seen.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["Bag"] * 3


def test_measure_power(example: Example) -> None:
    out = example("measure_power", "--frames", "20")
    assert "frames per second" in out
    assert "power is not measured" in out or "mJ per frame" in out


def test_predict_latency(example: Example) -> None:
    out = example("predict_latency")
    assert " ms (" in out and out.count(" us, ") == 5


def test_quantise_network(example: Example) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    out = example("quantise_network", "--output", "mine")
    assert "the exported file computes the same: True" in out
    assert Path("mine/model.xmodel").is_file()


@pytest.mark.slow
def test_train_own_loop(example: Example) -> None:
    pytest.importorskip("accelerate", reason="needs PyTorch and accelerate")
    losses = [float(line.split()[-1]) for line in example("train_own_loop").splitlines()]
    assert len(losses) == 10 and losses[-1] < losses[0]
    assert Path("student.pt").is_file() and Path("models/own-loop/model.xmodel").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_train_lightning(example: Example) -> None:
    pytest.importorskip("lightning", reason="needs lightning")
    example("train_lightning")
    assert Path("models/lightning/model.xmodel").is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_train_hugging_face(example: Example) -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    assert "train_loss" in example("train_hugging_face")
    assert Path("models/hugging-face/model.xmodel").is_file()


@pytest.mark.slow
def test_train_densenet(example: Example, repo_root: Path) -> None:
    pytest.importorskip("accelerate", reason="needs PyTorch and accelerate")
    for folder in (repo_root / "app/demo/images").iterdir():
        Path("photos", folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:5]:
            shutil.copy(path, Path("photos", folder.name))
    out = example("train_densenet", "photos", "--epochs", "3")
    assert out.count(" % in float") == 2 and "runs/qkd: " in out
    assert Path("runs/qkd/student.safetensors").is_file()
