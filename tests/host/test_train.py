"""The training loop: its losses, its phases, and its robustness."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch.nn.functional as F  # noqa: E402

from tutelage.host.networks import NetworkError, create  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.config import ConfigError, make_config  # noqa: E402
from tutelage.host.train.data import DataSet, load  # noqa: E402
from tutelage.host.train.evaluation import accuracy  # noqa: E402
from tutelage.host.train.loop import (  # noqa: E402
    CHECKPOINT,
    LOG,
    STUDENT,
    Interrupted,
    TrainingRun,
    train,
)
from tutelage.host.train.methods import (  # noqa: E402
    CO_STUDYING,
    METHODS,
    SELF_STUDYING,
    TUTORING,
    Phase,
    phase_losses,
)
from tutelage.host.train.optimisers import learning_rates  # noqa: E402
from tutelage.host.train.progress import Silent  # noqa: E402


@pytest.fixture(scope="module")
def folder(repo_root: Path) -> Path:
    """300 real images as an image folder: 240 to train on, 60 to test."""
    return repo_root / "app" / "demo" / "images"


@pytest.fixture(scope="module")
def data(folder: Path) -> tuple[DataSet, DataSet]:
    return load("folder", folder, "train"), load("folder", folder, "test")


def _config(method: str, **tables: Any) -> Any:
    table: dict[str, Any] = {
        "method": method,
        "student": {"network": "densenet-tiny"},
        "training": {"epochs": 3, "batch_size": 60, "lr": 0.05},
        "augmentation": {"flip": True, "shift": 2},
    }
    for name, values in tables.items():
        table[name] = {**table.get(name, {}), **values} if isinstance(values, dict) else values
    return make_config(table)


@pytest.fixture(scope="module")
def float_run(data: tuple[DataSet, DataSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float run from which other runs start, and which is also their teacher."""
    output = tmp_path_factory.mktemp("float")
    result = train(_config("float", training={"epochs": 8}), output, data=data)
    assert result.accuracy > 20  # of ten classes
    return output


def _quantised(method: str, float_run: Path, **tables: Any) -> Any:
    start = {"network": "densenet-tiny", "weights": str(float_run / STUDENT)}
    quantisation = {"weights": 4, "activations": 4, "calibration_images": 300}
    return _config(method, student=start, teacher=start, quantisation=quantisation, **tables)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "float"])
def test_every_method(
    method: str, float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    result = train(_quantised(method, float_run), tmp_path, data=data)
    assert len(result.history) == (0 if method == "ptq" else 3)
    assert all(np.isfinite(row["loss"]) for row in result.history)
    assert (result.teacher_accuracy is not None) == (method == "qkd")
    parts, state = checkpoint.load(tmp_path / STUDENT)
    assert "log2_t" in parts["student"] and state["accuracy"] == result.accuracy


OWN = """\
from torch import nn

def make():
    layers = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(*layers)

def few(): return nn.Sequential(nn.Flatten(), nn.Linear(2352, 3))
def smooth(): return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Mish(), nn.AdaptiveAvgPool2d(1),
                                   nn.Flatten(), nn.Linear(8, 10))
def large(): return nn.Sequential(nn.Conv2d(3, 8, 17), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                                  nn.Flatten(), nn.Linear(8, 10))
def grey(): return nn.Conv2d(1, 8, 3)
def pair():
    class Pair(nn.Module):
        def forward(self, x): return x, x
    return Pair()
def nothing(): pass
def auxiliary():
    class Auxiliary(nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            return (x, x) if self.training else x
    return Auxiliary(*make())
"""


def test_weights_of_ones_own_need_no_epochs(data: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    """A .pth of a network in a file: evaluated in float, and quantised by any method."""
    (tmp_path / "own.py").write_text(OWN)
    torch.manual_seed(1)
    network = create(f"{tmp_path / 'own.py'}:make")
    torch.save({"state_dict": network.state_dict()}, tmp_path / "w.pth")
    student = {"network": f"{tmp_path / 'own.py'}:make", "weights": str(tmp_path / "w.pth")}
    found = {}
    for method in ("float", "ptq", "qat", "qkd"):
        config = _config(
            method, student=student, training={"epochs": 0, "batch_size": 5000},
            quantisation={"equalise": False, "rounding": "nearest"},
        )  # fmt: skip
        found[method] = train(config, tmp_path / method, data=data)
        assert found[method].history == []
    assert found["float"].accuracy == accuracy(network, data[1])
    assert found["ptq"].accuracy == found["qat"].accuracy == found["qkd"].accuracy
    parts, _ = checkpoint.load(tmp_path / "ptq" / STUDENT)
    assert torch.equal(parts["student"]["layers.0.weight"], network.state_dict()["0.weight"])


@pytest.mark.parametrize(
    "function, words",
    [
        ("few", "returns 3 values for an image, but the data has 10 classes: give the network 10"),
        ("grey", "takes images of 1 channel, those of the data have 3: give colour = .grey. in"),
        ("pair", "returns tuple for an image: it must return its logits"),
        ("auxiliary", "returns tuple in training mode: it must return its logits only"),
        ("nothing", "its function must return a torch.nn.Module, not NoneType"),
    ],
)
def test_networks_that_do_not_fit_the_data(
    function: str, words: str, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    student = {"network": f"{tmp_path / 'own.py'}:{function}"}
    with pytest.raises(NetworkError, match=words):
        train(_config("float", student=student), tmp_path, data=data)


def test_weights_that_overflow_are_one_clear_line(
    data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    network = create(f"{tmp_path / 'own.py'}:make")
    state = network.state_dict()
    state["0.weight"] = torch.full_like(state["0.weight"], 3e38)
    torch.save(state, tmp_path / "w.pth")
    student = {"network": f"{tmp_path / 'own.py'}:make", "weights": str(tmp_path / "w.pth")}
    with pytest.raises(ConfigError, match=r"values that are not finite.* weights"):
        train(_config("ptq", student=student), tmp_path, data=data)


@pytest.mark.parametrize(
    ("function", "method", "words"),
    [
        ("make", "float", ""),
        ("smooth", "float", r"does not support Mish at 1: use .*\(`tutelage check` lists all"),
        ("large", "float", "kernel 17x17; the DPU supports 1 to 16"),
        ("large", "qat", "kernel 17x17; the DPU supports 1 to 16"),
    ],
)
def test_a_run_warns_before_the_time_is_spent(
    function: str, method: str, words: str, data: tuple[DataSet, DataSet], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path / 'own.py'}:{function}"
    torch.save(create(name).state_dict(), tmp_path / "w.pth")
    student = {"network": name, "weights": str(tmp_path / "w.pth")}
    with caplog.at_level("WARNING"):
        _run(_config(method, student=student), tmp_path, data)
    warnings = [r.getMessage() for r in caplog.records if r.name.endswith("forewarning")]
    assert len(warnings) == bool(words)
    if words:
        assert re.search(words, warnings[0])


def _run(config: Any, output: Path, data: tuple[DataSet, DataSet]) -> TrainingRun:
    return TrainingRun(config, output, data, Silent())


@pytest.mark.parametrize("phase", [SELF_STUDYING, CO_STUDYING, TUTORING], ids=lambda p: p.name)
def test_who_learns_in_which_phase(
    phase: Any, float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    run = _run(_quantised("qkd", float_run), tmp_path, data)
    assert run.teacher is not None
    run._set_modes(phase)
    before = {k: v.clone() for k, v in run.teacher.state_dict().items()}
    student = {k: v.clone() for k, v in run.student.state_dict().items()}
    run._schedule(0.3)
    run._step(phase, next(iter(run.feed.batches(0))), 0.3)
    changed = [k for k, v in run.teacher.state_dict().items() if not torch.equal(v, before[k])]
    if phase.teacher == "learns":
        assert any(k.endswith("running_mean") for k in changed)
        assert any(k.endswith("conv1.weight") for k in changed)
    else:
        assert changed == []
    moved = [k for k, v in run.student.state_dict().items() if not torch.equal(v, student[k])]
    assert "log2_t" in moved and any(k.endswith("weight") for k in moved)


def test_each_is_a_constant_for_the_other() -> None:
    labels = torch.tensor([1, 0, 2])
    student = torch.randn(3, 4, requires_grad=True)
    teacher = torch.randn(3, 4, requires_grad=True)
    loss, own = phase_losses(CO_STUDYING, student, teacher, labels, 4.0)
    assert own is not None
    (of_teacher,) = torch.autograd.grad(loss, teacher, retain_graph=True, allow_unused=True)
    (of_student,) = torch.autograd.grad(own, student, retain_graph=True, allow_unused=True)
    assert of_teacher is None and of_student is None
    assert phase_losses(TUTORING, student, teacher, labels, 4.0)[1] is None
    assert phase_losses(SELF_STUDYING, student, None, labels, 4.0)[1] is None


def test_the_losses_are_qkds() -> None:
    """CE + tau^2 KL(p_other || p_own), written out."""
    labels, tau = torch.tensor([1, 0, 2]), 3.0
    student, teacher = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    loss, own = phase_losses(CO_STUDYING, student, teacher, labels, tau)
    p, q = torch.softmax(teacher / tau, 1), torch.softmax(student / tau, 1)
    wanted = F.cross_entropy(student, labels) + tau**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, wanted)
    wanted = F.cross_entropy(teacher, labels) + tau**2 * (q * (q / p).log()).sum(1).mean()
    assert own is not None
    torch.testing.assert_close(own, wanted)
    loss, _ = phase_losses(METHODS["sqakd"].phases[0], student, teacher, labels, tau)
    divergence = tau**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss, divergence)
    phase = Phase("weighted", teacher="frozen", labels=0.3, distil=0.6)
    loss, _ = phase_losses(phase, student, teacher, labels, tau)
    wanted = 0.3 * F.cross_entropy(student, labels) + 0.6 * divergence
    torch.testing.assert_close(loss, wanted)


def test_each_method_has_the_phases_of_its_paper() -> None:
    found = {
        name: [(phase.teacher, phase.labels, phase.distil) for phase in method.phases]
        for name, method in METHODS.items()
    }
    alone, frozen = ("none", 1, 0), ("frozen", 1, 1)
    assert found == {
        "float": [alone], "ptq": [], "qat": [alone], "qat+kd": [frozen],
        "sqakd": [("frozen", 0, 1)], "qkd": [alone, ("learns", 1, 1), frozen],
    }  # fmt: skip
    assert [name for name, method in METHODS.items() if method.teaches_itself] == ["sqakd"]


def test_each_learner_has_its_own_rate() -> None:
    rates = {"lr": 0.2, "teacher_lr": 0.03, "threshold_lr": 0.004, "warmup": 0.1}
    training = _config("float", training={**rates, "freeze_thresholds": 0.8}).training
    half = learning_rates(training, 0.5)
    assert half == pytest.approx({"student": 0.1, "teacher": 0.015, "thresholds": 0.002})
    assert learning_rates(training, 0.0)["student"] == pytest.approx(0.2 * 0.01)
    late = learning_rates(training, 0.8)
    assert late["thresholds"] == 0 and late["teacher"] > 0
    assert learning_rates(training, 1.0)["student"] == 0


def test_a_resumed_run_is_an_undisturbed_one(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    config = _quantised("qkd", float_run)
    train(config, tmp_path / "whole", data=data)
    run = _run(config, tmp_path / "halves", data)
    run.plan = run.plan[:2]  # ends early, as a killed run does
    whole_plan_length = len(METHODS["qkd"].phases)
    run._schedule = _scheduled_for(run, whole_plan_length)  # type: ignore[method-assign]
    run.go()
    train(config, tmp_path / "halves", resume=True, data=data)
    _assert_equal_weights(tmp_path / "whole", tmp_path / "halves")


def _scheduled_for(run: TrainingRun, epochs: int) -> Any:
    schedule, left = run._schedule, len(run.plan)
    return lambda progress: schedule(progress * left / epochs)


def _assert_equal_weights(one: Path, other: Path) -> None:
    first, _ = checkpoint.load(one / STUDENT)
    second, _ = checkpoint.load(other / STUDENT)
    assert first["student"].keys() == second["student"].keys()
    for name, tensor in first["student"].items():
        assert torch.equal(tensor, second["student"][name]), name


STREAMED = "size = 28\nin_memory_mib = 0\nworkers = 2\nvalidation = 0.1\n"
"""Lines of [data] that keep images on the disk and read them in separate processes."""


def _write_config(
    path: Path, folder: Path, float_run: Path | None = None, epochs: int = 6, data: str = ""
) -> Path:
    student = f'weights = "{float_run / STUDENT}"' if float_run else ""
    path.write_text(
        f"""
method = "{"qkd" if float_run else "float"}"
[data]
kind = "folder"
path = "{folder}"
{data}
[student]
network = "densenet-tiny"
{student}
[teacher]
network = "densenet-tiny"
{student}
[quantisation]
weights = 4
activations = 4
[augmentation]
flip = true
{"random_resized_crop = 0.5" if data else ""}
{"mixup = 0.2" if data else ""}
[training]
epochs = {epochs}
batch_size = 40
"""
    )
    return path


def _command(config: Path, output: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tutelage", "train", str(config), "--output", str(output), *more]


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", STREAMED], ids=["in memory", "streamed"])
def test_killed_and_resumed_until_it_is_done(
    repo_root: Path, folder: Path, float_run: Path, tmp_path: Path, more: str
) -> None:
    """kill -9 at several moments; the final weights are those of an undisturbed run."""
    config = _write_config(tmp_path / "run.toml", folder, float_run, 30, more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        _command(config, tmp_path / "whole"), cwd=repo_root, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    kills, output = 0, tmp_path / "killed"
    for wait in (0.02, 0.15, 0.3):
        process = subprocess.Popen(
            _command(config, output, "--resume"), cwd=repo_root, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        kills += _kill_after_next_checkpoint(process, output / CHECKPOINT, wait)
    assert kills >= 2
    done = subprocess.run(
        _command(config, output, "--resume", "--json"), cwd=repo_root, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] > 0
    _assert_equal_weights(tmp_path / "whole", output)


def _kill_after_next_checkpoint(process: subprocess.Popen[bytes], path: Path, wait: float) -> bool:
    """kill -9 `wait` seconds after the next checkpoint; return False if the run ended before."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("quantised, more", [(False, ""), (True, ""), (False, STREAMED)])
def test_two_processes_compute_the_same_as_one(
    repo_root: Path, folder: Path, float_run: Path, tmp_path: Path, quantised: bool, more: str
) -> None:
    start = float_run if quantised else None
    config = _write_config(tmp_path / "run.toml", folder, start, 3, more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--main_process_port", "0"]  # fmt: skip
    for processes, options in ((1, []), (2, launch)):
        command = _command(config, tmp_path / str(processes))
        done = subprocess.run(
            [command[0], *options, *command[1:]], cwd=repo_root, env=environment,
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (checkpoint.load(tmp_path / n / STUDENT)[0]["student"] for n in ("1", "2"))
    for name, tensor in one.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=2e-3, msg=name)


def test_another_configuration_does_not_resume(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    train(_quantised("qat", float_run), tmp_path, data=data)
    with pytest.raises(checkpoint.CheckpointError, match="another seed: give another"):
        train(_quantised("qat", float_run, seed=1), tmp_path, resume=True, data=data)


def test_a_file_that_is_no_runs_checkpoint_does_not_resume(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    config = _config("float")
    parts, _ = checkpoint.load(float_run / STUDENT)
    states: list[dict[str, Any]] = [{}, {"config": asdict(config)}]
    states.append({**states[1], "epoch": None, "history": []})
    for state in states:
        checkpoint.save(tmp_path / CHECKPOINT, parts, state)
        with pytest.raises(checkpoint.CheckpointError, match="damaged, or not the checkpoint of a"):
            train(config, tmp_path, resume=True, data=data)


def test_a_run_killed_between_its_last_checkpoint_and_the_log(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    run = shutil.copytree(float_run, tmp_path / "run")
    (run / LOG).write_text("epoch\n")
    train(_config("float", training={"epochs": 8}), run, resume=True, data=data)
    assert (run / LOG).read_text() == (float_run / LOG).read_text()


def test_a_checkpoint_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"student": {"a": torch.ones(1)}}, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"x\.safetensors: cannot be written: .*File too large"):
            checkpoint.save(path, {"student": {"a": torch.ones(100_000)}}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [*tmp_path.iterdir()] == [path] and checkpoint.load(path)[1] == {"epoch": 1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_stops_ends_its_display(
    error: type[BaseException], data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    ended: list[bool] = []

    class Display(Silent):
        def step(self, *_: Any, **__: Any) -> None:
            raise error

        def end(self) -> None:
            ended.append(True)

    with pytest.raises(Interrupted if error is KeyboardInterrupt else error):
        train(_config("float"), tmp_path, progress=Display(), data=data)
    assert ended == [True]


def test_a_run_resumes_with_another_number_of_workers(
    data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    training = {"epochs": 1}
    train(_config("float", training=training, data={"workers": 0}), tmp_path, data=data)
    changed = {"workers": -1, "in_memory_mib": 0}
    result = train(_config("float", training=training, data=changed), tmp_path, True, data=data)
    assert len(result.history) == 1
    changed["limit"] = 200
    with pytest.raises(checkpoint.CheckpointError, match="another data: give another"):
        train(_config("float", training=training, data=changed), tmp_path, True, data=data)


def test_a_run_resumes_if_the_path_of_its_start_is_spelled_differently(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    train(_quantised("qat+kd", float_run), tmp_path, data=data)
    relative = _quantised("qat+kd", Path(os.path.relpath(float_run)))
    assert len(train(relative, tmp_path, resume=True, data=data).history) == 3


def test_untrainable_configurations_are_reported(
    data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="there are 240 training images, fewer than batch_size, which is 301"
    ):
        train(_config("float", training={"batch_size": 301}), tmp_path, data=data)
    with pytest.raises(NetworkError, match="did you mean 'densenet-tiny'"):
        train(_config("float", student={"network": "densenet-tony"}), tmp_path, data=data)
    with pytest.raises(NetworkError, match=r"does not take|unexpected keyword"):
        train(_config("float", student={"options": {"depth": 3}}), tmp_path, data=data)
    with pytest.raises(checkpoint.CheckpointError, match="no such file"):
        train(_quantised("qat", tmp_path / "nowhere"), tmp_path, data=data)


def test_a_teacher_in_bfloat16_leaves_the_student_in_float32(
    float_run: Path, data: tuple[DataSet, DataSet], tmp_path: Path
) -> None:
    few = data[0].take(60), data[1]
    training = {"mixed_precision": "bf16", "epochs": 3}
    result = train(_quantised("qkd", float_run, training=training), tmp_path, data=few)
    assert all(np.isfinite(row["loss"]) for row in result.history)
    parts, _ = checkpoint.load(tmp_path / STUDENT)
    assert torch.bfloat16 not in {value.dtype for value in parts["student"].values()}
    run = _run(_quantised("qkd", float_run), tmp_path / "float32", few)
    run.student.load_state_dict(dict(parts["student"]))
    assert run.feed.evaluate(run.student).accuracy == result.accuracy  # the same integers


def test_a_pipe_in_place_of_a_checkpoint_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match=r"x\.safetensors: not a regular file"):
        checkpoint.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}"]
)
def test_untrusted_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"not (a checkpoint|readable)",
    ):
        checkpoint.load(path)
