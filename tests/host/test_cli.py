"""The workstation's command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.__main__ import main


@pytest.fixture
def config(repo_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f"""method = "float"
data = {{ kind = "folder", path = "{repo_root / "app" / "demo" / "images"}" }}
student = {{ network = "densenet-tiny" }}
training = {{ epochs = 2, batch_size = 60 }}
"""
    )
    return path


def test_a_run_and_its_files(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["train", str(config), "--output", str(out)]
    assert main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["output"] == str(out)
    assert "epoch 2/2  float  loss" in captured.err
    names = {path.name for path in out.iterdir()}
    assert {"checkpoint.safetensors", "student.safetensors", "log.csv"} <= names
    assert list((out / "tensorboard").iterdir())
    assert len((out / "log.csv").read_text().splitlines()) == 3
    assert main(command) == 2
    assert "has a run already: continue it with --resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train"], "Missing argument"),
        (["train", "none.toml", "--output", "x"], "none.toml: No such file"),
        (["fly"], "no such command"),
        (["study", "none.toml"], "none.toml: No such file"),
    ],
)
def test_wrong_use(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_wrong_settings_and_data(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(config), "--output", str(tmp_path / "out"), "--set"]
    for change, words in (
        ("training.epochs=-1", "epochs is -1"),
        ("data.path=/none", "/none"),
        ("student.network=tiny", "no network 'tiny'"),
        ("student.weights=none.safetensors", "none.safetensors: no such file"),
    ):
        assert main([*command, change]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error


def test_a_place_for_results_that_cannot_be_made(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(config), "--output", str(config / "run")]) == 1
    out, err = capsys.readouterr()
    assert not out and err == f"tutelage: {config}/run: Not a directory: give another --output\n"


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(config: Path, tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", "train", str(config), "--output", str(out),
         "--set", "training.epochs=1000"],
        cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (out / "log.csv").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "continue with --resume" in error and "Traceback" not in error
