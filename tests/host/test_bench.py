"""The comparison with real frameworks: platforms' outputs, timing, and failures."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
pytest.importorskip("openvino", reason="needs OpenVINO")

import onnxruntime
import torch

from tutelage.__main__ import main
from tutelage.app.model import load_classifier
from tutelage.core.images.input_form import InputForm
from tutelage.core.images.preprocessor import Preprocessor
from tutelage.core.model_package import PackageError
from tutelage.core.results.bench_json import BenchSettings, bench_text, read_bench
from tutelage.core.results.intervals import difference
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.bench.bench import Bench
from tutelage.host.bench.command import BenchOptions, bench
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import CATALOGUE, Absent, entry, int8_file, model_file
from tutelage.host.bench.process import JsonProcess, ProcessError
from tutelage.host.bench.subject import load_images, load_subject
from tutelage.host.bench.subject_files import (
    FLOAT32_FILE,
    INT8_FILE,
    INT8_WEIGHTS_FILE,
    TENSORRT_FILE,
    XMODEL_FILE,
    read_form,
    read_images,
)
from tutelage.host.bench.torch_graph import read_onnx
from tutelage.host.export.onnx_qdq import FLOAT32, to_onnx
from tutelage.host.networks import create
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.train.config import make_config
from tutelage.host.train.loop import train

psutil: Any = import_module("psutil")  # it has no types

QUICK = ("onnxruntime-float32", "openvino-int8")
SHORT = {"limit": 60, "seconds": 0.1, "warm_up": 0.0}


@pytest.fixture(scope="module")
def demo(repo_root: Path) -> Path:
    return repo_root / "app" / "demo"


@pytest.fixture(scope="module")
def files(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the platforms' processes read, for the demo and 60 images."""
    folder = tmp_path_factory.mktemp("files")
    subject = load_subject(demo)
    subject.write(folder, load_images(subject, "", 60))
    return folder


_SMALL = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """The directory of a quantised run of few layers, since compiling takes long."""
    from tutelage.host.train import checkpoint

    folder = tmp_path_factory.mktemp("run")
    (folder / "net.py").write_text(_SMALL)
    name, weights = f"{folder / 'net.py'}:make", folder / "float.safetensors"
    torch.manual_seed(0)
    checkpoint.save(weights, {"student": create(name).state_dict()}, {"config": {}})
    table = {
        "method": "ptq",
        "data": {"kind": "folder", "path": str(demo / "images")},
        "student": {"network": name, "weights": str(weights)},
    }
    train(make_config(table), folder / "ptq")
    return folder / "ptq"


# -- outputs of platforms ---------------------------------------------------------------------


def _session(path: Path) -> Callable[[Any], Any]:
    """Node by node by ONNX's definition, since int8 kernels are exact on some processors only."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def test_all_forms_are_the_same_student(files: Path) -> None:
    x = FloatPreprocessor(read_form(files), channels_last=False)(read_images(files).pixels)
    exact = load_engine(files / XMODEL_FILE).run(x.transpose(0, 2, 3, 1))
    int8 = _session(files / INT8_FILE)(x)
    for name in (INT8_WEIGHTS_FILE, TENSORRT_FILE):
        assert np.array_equal(_session(files / name)(x), int8)
    assert np.abs(int8 - exact).max() < 1  # halves are rounded to even, not up
    float32 = _session(files / FLOAT32_FILE)(x)
    with torch.inference_mode():
        assert np.allclose(read_onnx(files / FLOAT32_FILE)(torch.from_numpy(x)), float32, atol=1e-4)
    assert (float32.argmax(1) == exact.argmax(1)).mean() > 0.95


@pytest.mark.parametrize(
    "flags, name",
    [
        ("sse4_1 avx2 fma", INT8_FILE),
        ("avx2 avx512f avx512bw", INT8_FILE),
        ("avx2 avx512f avx512_vnni", INT8_WEIGHTS_FILE),
        ("avx2 avx_vnni", INT8_WEIGHTS_FILE),
    ],
)
def test_int8_weights_are_for_processors_with_vnni(
    flags: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(f"processor\t: 0\nmodel name\t: a processor\nflags\t\t: fpu {flags}\n\n")
    monkeypatch.setattr("tutelage.host.bench.environment._CPU_INFO", processor)
    (tmp_path / INT8_FILE).touch()
    assert int8_file(tmp_path).name == INT8_FILE  # a model directory may have only this one
    (tmp_path / INT8_WEIGHTS_FILE).touch()
    assert int8_file(tmp_path).name == name


@pytest.mark.parametrize("name", ["mobilenet-small", "resnet-8", "densenet-tiny"])
def test_every_layer_has_a_pytorch_form(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student(create(name, in_channels=3), (3, 32, 32), Bits())
    images = torch.randn(8, 3, 32, 32)
    calibrate(student, images)
    path = tmp_path / "net.onnx"
    path.write_bytes(to_onnx(to_quantised(student.eval(), "net"), FLOAT32))
    with torch.inference_mode():
        found = read_onnx(path)(images).numpy()
    assert np.allclose(found, _session(path)(images.numpy()), atol=1e-3)


def test_preprocessing_is_the_applications(demo: Path, files: Path) -> None:
    classifier = load_classifier(demo)
    app = Preprocessor(classifier.form, 7)
    ours = FloatPreprocessor(read_form(files), channels_last=True)
    rng = np.random.default_rng(0)
    for size in ((28, 28), (480, 640), (61, 57), (20, 90)):
        image = np.asarray(cv2.blur(rng.integers(0, 256, (*size, 3), np.uint8), (3, 3)), np.uint8)
        target = np.empty((28, 28, 1), np.int8)
        app(image, target)
        assert np.array_equal(ours([image])[0] * 128, target.astype(np.float32)), size


@pytest.mark.parametrize("colour, order", [("rgb", [2, 1, 0]), ("bgr", [0, 1, 2])])
def test_colours_and_layouts(colour: str, order: list[int]) -> None:
    form = InputForm(6, 4, colour, (1.0, 2.0, 3.0), (1.0, 0.5, 0.25), "center")
    images = list(np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8))
    last, first = (
        FloatPreprocessor(form, channels_last)(images) for channels_last in (True, False)
    )
    wanted = (np.array(images)[..., order] - [1.0, 2.0, 3.0]) * [1.0, 0.5, 0.25]
    assert np.allclose(last, wanted) and np.array_equal(first, last.transpose(0, 3, 1, 2))


def test_images_pass_unchanged(demo: Path, tmp_path: Path) -> None:
    for size, label in ((10, "Bag"), (12, "Coat"), (14, "elsewhere")):
        path = tmp_path / "images" / label / "0.png"
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.full((size, size + 1, 3), size, np.uint8))
    subject = load_subject(demo)
    images = load_images(subject, str(tmp_path / "images"), 0)
    subject.write(tmp_path, images)
    again = read_images(tmp_path)
    assert [image.shape for image in again.pixels] == [(10, 11, 3), (12, 13, 3), (14, 15, 3)]
    assert all(map(np.array_equal, again.pixels, images.pixels))
    assert again.labels.tolist() == [8, 4, -1]


# -- a comparison -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    names = ("torch-eager", "onnxruntime-int8", "openvino-float32", "cuda-eager", "tensorrt-int8")
    command = ["bench", str(demo), "--limit", "60", "--seconds", "0.1", "--warm-up", "0"]
    command += ["--repetitions", "2", "--threads", "1", "--output", str(out), "--json"]
    command += [f"--watts={names[1]}=20", *(f"--platform={name}" for name in names)]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "bench.json").read_text())
    rows = {row["id"]: row for row in report["rows"]}
    assert list(rows) == [*names, "dpu-predicted"]
    for name in names[:3]:
        _check_measured(rows[name])
    if not torch.cuda.is_available():
        assert rows["cuda-eager"]["state"] == "absent" and "CUDA" in rows["cuda-eager"]["reason"]
    assert rows["dpu-predicted"]["kind"] == "predicted"
    assert rows["dpu-predicted"]["accuracy_by"] == "the emulation, on these images"
    assert rows[names[1]]["power_source"] == "given by the user"
    assert rows[names[0]]["power_reason"] or rows[names[0]]["power_source"] == "rapl"
    _check_files(report, out)
    assert main(command) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def _check_measured(row: dict[str, Any]) -> None:
    assert row["state"] == "done" and row["kind"] == "measured" and row["threads"] == 1
    assert row["provenance"].startswith("measured, by tutelage bench, ")
    assert 0 < row["network_latency_ms"]["p50"]["value"] <= row["latency_ms"]["p50"]["value"]
    p50, p90, p99 = (row["latency_ms"][name]["value"] for name in ("p50", "p90", "p99"))
    assert p50 <= p90 <= p99
    assert 0 < row["fps"]["value"] <= row["network_fps"]["value"]
    assert row["latency_ms"]["p50"]["n"] == 2 and row["latency_ms"]["p50"]["coverage"] == 0.5
    assert row["accuracy"] > 80 and row["same_class"] > 90
    assert str(row["batch"]) in row["batch_trials"] and len(row["batch_trials"]) == 3
    assert row["model_bytes"] > 1000 and row["memory_mib"] > 10


def _check_files(report: dict[str, Any], out: Path) -> None:
    lines = list(csv.DictReader((out / "bench.csv").open()))
    assert [line["id"] for line in lines] == [row["id"] for row in report["rows"]]
    assert float(lines[0]["latency_ms_p50"]) == report["rows"][0]["latency_ms"]["p50"]["value"]
    text = (out / "bench.md").read_text()
    assert "no DPU was measured: give a run of tutelage measure with --dpu" in text
    assert "dpu-predicted (predicted) over torch-eager" in text
    assert "at least 9 " in text and "at least 4 " in text
    assert "given by the user" in text
    predicted = next(line for line in text.splitlines() if line.startswith("| dpu-predicted [!]"))
    cells = [cell.strip() for cell in predicted.strip("|").split("|")]
    assert re.fullmatch(r"0\.\d+ \(0\.\d+ to 0\.\d+\)", cells[2]) and cells[3:5] == ["-", "-"]
    assert "is not a confidence interval" in text
    assert float(lines[-1]["latency_ms_p50_low"]) < float(lines[-1]["latency_ms_p50"])
    assert lines[-1]["latency_ms_p99"] == "" and float(lines[0]["accuracy_percent"]) > 80
    for head in ("latency p50 [ms]", "p99 [ms]", "Offline [fps]", "power [W]", "model [KiB]"):
        assert f" {head} |" in text


def test_a_directory_that_cannot_be_made_is_reported_before_anything_is_measured(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bench, "go", lambda _: pytest.fail("measured, and then lost"))
    (tmp_path / "file").touch()
    assert main(["bench", str(demo), "--limit", "3", "--output", str(tmp_path / "file/out")]) == 1
    assert f"Not a directory: '{tmp_path}/file/out'" in capsys.readouterr().err


@pytest.mark.slow
def test_windows_are_interleaved_and_turn(demo: Path) -> None:
    results = _bench(demo, QUICK, repetitions=3).results()
    windows = [
        (repetition["single_stream"]["start_s"], row.id)
        for row in results.rows[:2]
        for repetition in row.repetitions
    ]
    order = [name for _, name in sorted(windows)]
    assert order == [QUICK[0], QUICK[1], QUICK[1], QUICK[0], QUICK[0], QUICK[1]]


def _bench(
    demo: Path, names: tuple[str, ...], repetitions: int = 2,
    say: Callable[[str], None] = lambda _: None, meter: tuple[str, ...] = (),
) -> Bench:  # fmt: skip
    subject = load_subject(demo)
    settings = BenchSettings(names, repetitions, 0.1, warm_up=0.0, threads=1, board="zcu104")
    found = Bench(settings, subject, load_images(subject, "", 60), (), say, meter)
    found.go()
    return found


def test_a_run_with_its_own_data(run: Path, tmp_path: Path) -> None:
    name = f"{run.parent / 'net.py'}:make"
    options = BenchOptions(("onnxruntime-int8",), repetitions=1, threads=1, network=name, **SHORT)  # type: ignore[arg-type]
    results, folder, _ = bench(run, options, tmp_path / "out", lambda _: None)
    assert (folder / "bench.json").exists()
    assert results.images.source.startswith("test set, 60 images")
    assert results.model.checkpoint_sha256
    row = results.rows[0]
    assert row.same_class and row.same_class > 90 and row.fps.n == 1
    assert bench_text(read_bench(folder)) == bench_text(results)
    images = load_images(load_subject(run, name), "dataset", 0)
    assert len(images.labels) == 60 and images.pixels[0].shape == (28, 28, 3)


@pytest.mark.slow
def test_compiled_pytorch(run: Path, tmp_path: Path) -> None:
    subject = load_subject(run, f"{run.parent / 'net.py'}:make")
    subject.write(tmp_path, load_images(subject, "", 32))
    process = _worker("torch-compiled", tmp_path, tmp_path / "log")
    answer = process.ask({"do": "prepare"}, 300)
    assert answer["version"].startswith("torch ") and answer["device"] == "CPU"
    path = tmp_path / "logits.npy"
    process.ask({"do": "logits", "output": str(path)}, 300)
    request = {"do": "measure", "batch": 32, "seconds": 0.1, "warm_up": 0.0}
    found = process.ask(request, 60)
    process.close()
    assert found["offline"]["fps"] > 0 and found["single_stream"]["latency_ms"]["p50"] > 0
    x = FloatPreprocessor(read_form(tmp_path), channels_last=False)(read_images(tmp_path).pixels)
    assert np.allclose(np.load(path), _session(tmp_path / FLOAT32_FILE)(x), atol=1e-3)


def _worker(
    name: str, folder: Path, log: Path, environment: dict[str, str] | None = None
) -> JsonProcess:
    cpu = str(min(os.sched_getaffinity(0)))
    command = ["tutelage.host.bench.worker", name, str(folder), "1", cpu]
    variables = {"TORCHINDUCTOR_COMPILE_THREADS": "1", **(environment or {})}
    return JsonProcess(command, log, variables)


# -- watts ------------------------------------------------------------------------------------


@pytest.fixture
def counting_rapl(tmp_path: Path) -> Iterator[Path]:
    """A stand-in for a RAPL package with 10 W, as a tree of files."""
    zone = tmp_path / "class" / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    (zone / "energy_uj").write_text("0\n")
    code = (
        "import pathlib, sys, time\npath = pathlib.Path(sys.argv[1])\nstart = time.monotonic()\n"
        "while True:\n    text = f'{int(1e7 * (time.monotonic() - start)):<15d}\\n'\n"
        "    with path.open('r+') as file: file.write(text)\n    time.sleep(0.002)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(zone / "energy_uj")])
    yield tmp_path
    process.kill()
    process.wait()


def test_watts_where_there_is_a_meter(demo: Path, counting_rapl: Path) -> None:
    found = _bench(demo, QUICK[:1], meter=("--sysfs", str(counting_rapl)))
    row = found.rows[0]
    assert row.power_source == "rapl" and "not the whole computer" in row.power_scope
    assert row.fps.value and row.watts.value == pytest.approx(10, rel=0.3)
    assert row.joules_per_frame.value == pytest.approx(10 / row.fps.value, rel=0.4)
    assert row.idle_watts.value == pytest.approx(10, rel=0.3) and row.idle_watts.n == 5
    assert row.idle_watts.value and row.watts.value and row.watts_above_idle.value is not None
    assert row.watts_above_idle == difference(row.watts, row.idle_watts, "W")
    assert found.results().power["cpu"].idle == row.idle_watts
    errors = [repetition["offline"]["watts_error"] for repetition in row.repetitions]
    assert row.watts.sensor_error == max(errors) > 0 and row.idle_watts.sensor_error


# -- failures ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_that_is_killed_ends_its_own_row_only(demo: Path) -> None:
    def kill_at(text: str) -> None:
        if text.startswith("repetition 2"):
            for child in psutil.Process().children():
                if QUICK[0] in child.cmdline():
                    child.kill()

    broken, whole = _bench(demo, QUICK, repetitions=3, say=kill_at).rows[:2]
    assert broken.state == "failed" and "ended by SIGKILL" in broken.reason
    assert "1 repetition complete" in broken.reason and broken.latency_ms.p50.n == 1
    assert whole.state == "done" and whole.latency_ms.p50.n == 3


@pytest.mark.slow
def test_ctrl_c_keeps_complete_results(demo: Path, tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tutelage", "bench", str(demo), "--output", str(out)]
    command += ["--limit=60", "--seconds=0.1", "--warm-up=0", "--repetitions=500", "--threads=1"]
    command += [f"--platform={name}" for name in QUICK]
    with subprocess.Popen(command, cwd=repo_root, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.DEVNULL) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("repetition 3"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(60) == 1
    report = json.loads((out / "bench.json").read_text())
    assert report["state"] == "interrupted"
    row = report["rows"][0]
    assert row["state"] == "interrupted" and "2 repetitions complete" in row["reason"]
    assert row["latency_ms"]["p50"]["n"] >= 2
    _, alive = psutil.wait_procs(children, timeout=10)
    assert children and not alive


def test_a_process_that_hangs_is_given_up(files: Path, tmp_path: Path) -> None:
    process = _worker(QUICK[0], files, tmp_path / "log")
    assert process.ask({"do": "prepare"}, 60)["threads"] == 1
    with pytest.raises(ProcessError, match="KeyError"):
        process.ask({"do": "nothing"}, 60)
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(ProcessError, match="no answer within 0 s"):
        process.ask({"do": "prepare"}, 0.2)
    assert time.monotonic() - start < 5 and not psutil.pid_exists(process.pid)


def test_a_process_that_ends_is_reported(tmp_path: Path) -> None:
    process = _worker("none", tmp_path, tmp_path / "log")
    with pytest.raises(ProcessError, match="ended with status 1: KeyError: 'none'"):
        process.ask({"do": "prepare"}, 60)
    process.close()


@pytest.mark.slow
def test_compiling_needs_a_compiler(files: Path, tmp_path: Path) -> None:
    variables = {"PATH": str(tmp_path), "CXX": ""}
    process = _worker("torch-compiled", files, tmp_path / "log", variables)
    assert "C++ compiler" in process.ask({"do": "prepare"}, 120)["absent"]
    process.close()


@pytest.mark.parametrize("package", ["torch", "onnxruntime", "openvino"])
def test_a_framework_that_is_not_installed(
    package: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name for name in CATALOGUE if name.startswith(package)]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)
    for name in names:
        with pytest.raises(Absent, match="is not installed"):
            entry(name).make().prepare(files, 1)


def test_gpus_that_are_not_there(files: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in ("cuda-eager", "cuda-compiled", "tensorrt-float32", "tensorrt-int8"):
        with pytest.raises(Absent, match=r"cannot use CUDA|no TensorRT"):
            entry(name).make().prepare(files, 1)


def test_a_model_directory_with_less(demo: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.toml", "model.onnx", "model.xmodel"):
        (model / name).write_bytes((demo / name).read_bytes())
    subject = load_subject(model)
    subject.write(tmp_path, load_images(subject, str(demo / "images"), 20))
    assert model_file(tmp_path, INT8_FILE).exists() and model_file(tmp_path, XMODEL_FILE).exists()
    with pytest.raises(Absent, match=r"has no quantised\.xmodel to make float32\.onnx from"):
        entry("torch-eager").make().prepare(tmp_path, 1)
    (model / "model.onnx").write_bytes(b"another")
    with pytest.raises(PackageError, match=r"model\.onnx: SHA-256 is .* model\.toml says"):
        load_subject(model)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["none"], "none: no such file"),
        (["app"], "neither a run of"),
        (["app/demo/model.xmodel"], "give the model's directory"),
        (["models/fashion-densenet/README.md"], "give the model's directory"),
        (["app/demo", "--platform", "abacus"], "no platform 'abacus'; choose from torch-eager"),
        (["app/demo", "--board", "zx81"], "no board 'zx81'"),
        (["app/demo", "--threads", "4096"], "--threads 4096: only "),
        (["app/demo", "--watts", "openvino-int8"], "give a row and its watts"),
        (["app/demo", "--watts", "openvino-int8=-1"], "give a row and its watts"),
        (["app/demo", "--watts", "abacus=1"], "no such row"),
        (["app/demo", "--images", "none"], "none: no such directory"),
        (["app/demo", "--images", "board"], "board: has no images"),
        (["app/demo", "--images", "dataset"], "has no data set"),
        (["app/demo", "--dpu", "none"], "none: No such file"),
        (["app/demo", "--dpu", "app/demo/model.toml"], "not a measured run"),
    ],
)
def test_wrong_use(
    arguments: list[str], words: str, repo_root: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(repo_root)
    assert main(["bench", *arguments, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "out").exists()
