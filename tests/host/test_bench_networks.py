"""Networks by name in the comparison, NNCF, and OpenVINO's int8 on all processors."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("openvino", reason="needs OpenVINO")

from tutelage.__main__ import main
from tutelage.core.results.bench_json import BenchSettings, read_bench
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.bench.bench import Bench
from tutelage.host.bench.duration import expected
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.network_subject import NetworkRequest, made_up_images, network_subject
from tutelage.host.bench.peer_files import MOST_BYTES, PeerSource, most_images
from tutelage.host.bench.platform import Absent, entry
from tutelage.host.bench.process import JsonProcess
from tutelage.host.bench.subject import BenchUsageError, load_images, load_subject
from tutelage.host.bench.subject_files import CALIBRATION_FILE, INT8_FILE, NETWORK_FILE, XMODEL_FILE
from tutelage.host.export.onnx_qdq import to_onnx

NNCF = find_spec("nncf") is not None


@pytest.fixture(scope="module")
def demo(repo_root: Path) -> Path:
    return repo_root / "app" / "demo"


def logits(name: str, folder: Path, **environment: str) -> np.ndarray:
    """Return a platform's outputs for the images in a folder, computed in a separate process."""
    command = ["tutelage.host.bench.worker", name, str(folder), "1",
               str(min(os.sched_getaffinity(0)))]  # fmt: skip
    process = JsonProcess(command, folder / "log", environment)
    try:
        answer = process.ask({"do": "prepare"}, 300)
        assert "absent" not in answer, answer
        process.ask({"do": "logits", "output": str(folder / "x.npy")}, 120)
    finally:
        process.close()
    return np.load(folder / "x.npy")


# -- OpenVINO's int8 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "instructions",
    ["AVX2", *(pytest.param(each, marks=pytest.mark.slow) for each in ("AVX512_CORE_VNNI", ""))],
)
def test_openvino_computes_our_int8_on_every_instruction_set(
    instructions: str, demo: Path, tmp_path: Path
) -> None:
    """OpenVINO 2026.4 rounds signed activations after a concat to whole numbers on
    processors without AMX: another class for 5 to 7 % of the images, logits 40 steps away."""
    subject = load_subject(demo)
    images = load_images(subject, "", 100)
    subject.write(tmp_path, images)
    if instructions == "AVX2":
        (tmp_path / "int8-weights.onnx").unlink()  # these are for VNNI
    found = logits("openvino-int8", tmp_path, ONEDNN_MAX_CPU_ISA=instructions)
    x = FloatPreprocessor(subject.form, channels_last=True)(images.pixels)
    exact = load_engine(tmp_path / XMODEL_FILE).run(x).reshape(len(x), -1)
    step = np.diff(np.unique(exact)).min()
    assert np.abs(found - exact).max() <= 5 * step
    assert (found.argmax(1) == exact.argmax(1)).mean() >= 0.98


# -- networks by name -------------------------------------------------------------------------


def test_a_network_by_name(tmp_path: Path) -> None:
    subject = network_subject(NetworkRequest("densenet-tiny", "3x32x32"))
    assert subject.made_up and any("random" in note for note in subject.notes)
    assert subject.form.channels == 3 and len(subject.labels) == 10
    images = made_up_images(subject.form)
    assert subject.write(tmp_path, images, peers=True) == []
    calibrated = np.load(tmp_path / CALIBRATION_FILE)
    x = FloatPreprocessor(subject.form, channels_last=False)(images.pixels)
    assert calibrated.shape == x.shape and calibrated.std() == pytest.approx(x.std(), rel=0.05)
    assert (tmp_path / NETWORK_FILE).exists() and (tmp_path / INT8_FILE).exists()
    again = network_subject(NetworkRequest("densenet-tiny", "3x32x32"))
    assert again.graph and subject.graph
    assert to_onnx(again.graph) == to_onnx(subject.graph), "random weights are the same each time"


def test_a_network_with_weights_and_pictures(demo: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from tutelage.host.networks import create

    save_file(create("densenet-tiny", in_channels=3).state_dict(), tmp_path / "w.safetensors")
    request = NetworkRequest(
        "densenet-tiny", "3x28x28", str(tmp_path / "w.safetensors"), str(demo / "images")
    )
    subject = network_subject(request)
    assert not subject.made_up and subject.labels[0] == "Ankle boot"
    assert subject.notes == ["calibrated with 300 pictures"]
    assert (load_images(subject, str(demo / "images"), 20).labels >= 0).all()
    with pytest.raises(BenchUsageError, match="1 or 3 channels"):
        network_subject(replace(request, input="5x28x28"))


def test_the_command_compares_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["bench", "densenet-tiny", "--input", "3x32x32", "--platform", "onnxruntime-int8",
               "--repetitions", "1", "--seconds", "0.05", "--warm-up", "0", "--threads", "1",
               "-o", str(out)]  # fmt: skip
    assert main(command) == 0
    results = read_bench(out)
    row, dpu = results.rows
    assert row.state == "done" and dpu.kind == "predicted" and dpu.watts.value
    assert row.accuracy is None and not any("its class differs" in each for each in row.concerns)
    assert results.images.source == "64 made-up pictures"
    assert "random" in results.notes[0]
    printed = capsys.readouterr()
    assert printed.err.startswith("about ") and "its weights are random" in printed.out
    assert main(["bench", "app/demo", "--weights", "x.pth"]) == 2


def test_the_duration_grows_with_the_request(demo: Path) -> None:
    subject = load_subject(demo)
    short = BenchSettings(("openvino-int8",), 1, 1.0, 0.5, 1, "zcu104")
    one = expected(short, subject)
    assert one.measuring == 3.0 and f"{one.measuring:.0f} s of windows" in one.text
    assert expected(replace(short, repetitions=6), subject).measuring == 18.0
    compiled = expected(replace(short, platforms=("torch-compiled",)), subject)
    assert compiled.preparing > one.preparing
    hour = expected(replace(short, repetitions=1200), subject)
    assert hour.text.startswith("about 60 min")


class _OfSpeed:
    """Stand-in for a platform's process with a given number of frames per second."""

    def __init__(self, fps: float) -> None:
        self.fps = fps

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, float]:
        return {"fps": self.fps}

    def close(self) -> None: ...


@pytest.mark.parametrize(("fps", "tried"), [(1000.0, 3), (40.0, 2), (4.0, 1)])
def test_no_batch_outlasts_a_window(fps: float, tried: int, demo: Path) -> None:
    subject = load_subject(demo)
    settings = BenchSettings(("openvino-int8",), 1, 1.0, 0.0, 1, "zcu104")
    found = Bench(settings, subject, load_images(subject, "", 1))
    found._processes["openvino-int8"] = _OfSpeed(fps)  # type: ignore[assignment]
    row = found.rows[0]
    found._try_batches(row)
    assert list(row.batch_trials) == ["8", "32", "128"][:tried]


# -- NNCF -------------------------------------------------------------------------------------


@pytest.mark.skipif(not NNCF, reason="NNCF is not installed")
@pytest.mark.slow
def test_nncf_quantises_the_float_network(demo: Path, tmp_path: Path) -> None:
    subject = load_subject(demo)
    images = load_images(subject, "", 60)
    notes = subject.write(tmp_path, images, peers=True)
    assert len(notes) == 1 and "calibrated with the compared images" in notes[0]
    found = logits("openvino-nncf", tmp_path)
    x = FloatPreprocessor(subject.form, channels_last=True)(images.pixels)
    exact = load_engine(tmp_path / XMODEL_FILE).run(x).reshape(len(x), -1)
    assert (found.argmax(1) == exact.argmax(1)).mean() > 0.9
    assert 0 < np.abs(found - exact).mean() < 1


def test_without_nncf_or_a_network_it_is_absent(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.host.peers import nncf_peer

    monkeypatch.setattr(nncf_peer, "version", lambda: "")
    with pytest.raises(Absent, match="pip install nncf"):
        entry("openvino-nncf").make().prepare(tmp_path, 1)
    monkeypatch.setattr(nncf_peer, "version", lambda: "3")
    subject = load_subject(demo)
    subject.graph = None
    assert subject.write(tmp_path, load_images(subject, "", 3), peers=True) == []
    with pytest.raises(Absent, match="no float network"):
        entry("openvino-nncf").make().prepare(tmp_path, 1)


def test_calibration_images_are_bounded(tmp_path: Path) -> None:
    assert most_images((1, 28, 28)) == 300
    assert most_images((3, 1024, 1024)) * 3 * 1024 * 1024 * 4 <= MOST_BYTES
    assert most_images((3, 8192, 8192)) == 1
    PeerSource(b"model", np.zeros((400, 1, 2, 2), np.float32)).write(tmp_path)
    assert np.load(tmp_path / CALIBRATION_FILE).shape == (300, 1, 2, 2)
