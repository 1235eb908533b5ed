"""A frozen teacher's logits are computed once where images repeat, and change no result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

import torch
from safetensors.torch import save_file

from tutelage.host.networks import create
from tutelage.host.train import checkpoint, kept_logits, loop
from tutelage.host.train.config import Config, make_config
from tutelage.host.train.data import DataSet, load
from tutelage.host.train.kept_logits import can_keep
from tutelage.host.train.loop import CHECKPOINT, STUDENT, TrainingRun, train
from tutelage.host.train.progress import Silent
from tutelage.host.train.students import trained_network

Sets = tuple[DataSet, DataSet]


@pytest.fixture(scope="module")
def data(repo_root: Path) -> Sets:
    folder = repo_root / "app" / "demo" / "images"
    train_set, test_set = (load("folder", folder, split) for split in ("train", "test"))
    return train_set.take(100), test_set.take(20)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    save_file(create("densenet-tiny", in_channels=3).state_dict(), path)
    return path


def _config(weights: Path, method: str = "qat+kd", **tables: Any) -> Config:
    network = {"network": "densenet-tiny", "weights": str(weights)}
    table: dict[str, Any] = {
        "method": method,
        "student": network,
        "teacher": network,
        "quantisation": {"weights": 4, "activations": 4, "calibration_images": 20},
        "training": {"epochs": 3, "batch_size": 30, "evaluate_every": 3},
    }
    return make_config(table | tables)


def _assert_equal_runs(one: Path, other: Path) -> None:
    ours, theirs = (checkpoint.load(path / STUDENT)[0]["student"] for path in (one, other))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


class _InDouble(torch.nn.Module):
    """A teacher whose logits (N, classes) do not depend on the batch that an image is in.

    In float32, kernels for some processors round differently by the size of the batch.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images.double()).float()
        return logits


@pytest.mark.parametrize("method", ["qat+kd", "qkd"])
def test_kept_logits_leave_a_run_as_it_is(
    method: str, weights: Path, data: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"epochs": 4, "batch_size": 30, "evaluate_every": 4}
    config = _config(weights, method, training=training)
    if method == "qkd":  # two epochs of tutoring
        phases = [("none", 0.0), ("learns", 1.0), ("frozen", 1.0), ("frozen", 1.0)]
        config = _config(
            weights, method, training=training,
            phases=[{"name": t, "teacher": t, "distil": d} for t, d in phases],
        )  # fmt: skip
    monkeypatch.setattr(loop, "trained_network", lambda *given: _InDouble(trained_network(*given)))
    kept = train(config, tmp_path / "kept", data=data)
    monkeypatch.setattr(kept_logits, "MOST_BYTES", 0)
    computed = train(config, tmp_path / "computed", data=data)
    assert [row["loss"] for row in kept.history] == [row["loss"] for row in computed.history]
    _assert_equal_runs(tmp_path / "kept", tmp_path / "computed")


def test_a_frozen_teacher_sees_each_image_once(weights: Path, data: Sets, tmp_path: Path) -> None:
    run = TrainingRun(_config(weights), tmp_path, data, Silent())
    assert run.teacher is not None
    seen: list[int] = []
    run.teacher.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    run.go()
    assert sum(seen) == len(data[0])


def test_a_resumed_run_has_the_same_logits(weights: Path, data: Sets, tmp_path: Path) -> None:
    config = _config(weights)
    train(config, tmp_path / "whole", data=data)
    run = TrainingRun(config, tmp_path / "parts", data, Silent())
    plan, run.plan = run.plan, run.plan[:1]
    run._schedule = _scheduled_for(run, len(plan))  # type: ignore[method-assign]
    run.go()
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    train(config, tmp_path / "parts", resume=True, data=data)
    _assert_equal_runs(tmp_path / "whole", tmp_path / "parts")


def _scheduled_for(run: TrainingRun, epochs: int) -> Any:
    """The learning rates of the whole run, although its plan is shortened."""
    schedule, steps = run._schedule, len(run.plan)
    return lambda progress: schedule(progress * steps / epochs)


def test_pictures_that_cannot_be_read_have_no_logits(
    repo_root: Path, weights: Path, tmp_path: Path
) -> None:
    """They are left out of batches; the others keep their own logits."""
    folder = tmp_path / "photos"
    shutil.copytree(repo_root / "app" / "demo" / "images", folder)
    *_, broken = sorted(folder.rglob("*.png"))[:7]
    data = load("folder", folder, "train", memory=0), load("folder", folder, "test")
    broken.write_bytes(b"no picture")
    run = TrainingRun(_config(weights), tmp_path / "run", data, Silent())
    assert run.teacher is not None and run.kept_logits is not None
    run.teacher.eval()
    batch = next(iter(run.feed.batches(0)))
    run.kept_logits.compute()
    with torch.no_grad():
        wanted = run.teacher(batch.images)
    torch.testing.assert_close(run.kept_logits.of(batch.rows), wanted)


def test_an_interrupted_computation_leaves_no_logits(
    weights: Path, data: Sets, tmp_path: Path
) -> None:
    """A notebook may go on after Ctrl-C, and must not learn from rows of zeros."""
    run = TrainingRun(_config(weights), tmp_path, data, Silent())
    assert run.teacher is not None and run.kept_logits is not None
    hook = run.teacher.register_forward_hook(_Interrupt(after=1))
    with pytest.raises(KeyboardInterrupt):
        run.kept_logits.compute()
    hook.remove()
    run.teacher.eval()
    run.kept_logits.compute()
    batch = next(iter(run.feed.batches(0)))
    with torch.no_grad():
        wanted = run.teacher(batch.images)
    torch.testing.assert_close(run.kept_logits.of(batch.rows), wanted)


class _Interrupt:
    """A forward hook that interrupts once `after` batches are computed."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, *_: Any) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1


def test_worker_processes_change_no_result(repo_root: Path, weights: Path, tmp_path: Path) -> None:
    """One reader gives both the images for the teacher and the batches of the epoch."""
    folder = repo_root / "app" / "demo" / "images"
    data = load("folder", folder, "train", memory=0), load("folder", folder, "test", memory=0)
    data = data[0].take(100), data[1].take(20)
    losses = []
    for workers in (0, 1):
        config = _config(weights, data={"workers": workers})
        assert TrainingRun(config, tmp_path, data, Silent()).kept_logits is not None
        history = train(config, tmp_path / str(workers), data=data).history
        losses.append([(row["loss"], row["train_accuracy"]) for row in history])
    assert losses[0] == losses[1]
    _assert_equal_runs(tmp_path / "0", tmp_path / "1")


@pytest.mark.parametrize(
    "why, tables",
    [
        ("images change", {"augmentation": {"flip": True}}),
        ("images are mixed", {"augmentation": {"mixup": 0.2}}),
        ("one epoch", {"training": {"epochs": 1, "batch_size": 30}}),
        ("the teacher learns", {"method": "qkd"}),  # and is frozen for one epoch
    ],
)
def test_where_nothing_repeats_nothing_is_kept(
    why: str, tables: dict[str, Any], weights: Path, data: Sets, tmp_path: Path
) -> None:
    run = TrainingRun(_config(weights, **tables), tmp_path, data, Silent())
    assert run.kept_logits is None, why


def test_each_process_computes_all_logits(weights: Path, data: Sets) -> None:
    config = _config(weights)
    assert [can_keep(config, [*config.plan] * 3, data[0], n) for n in (1, 2, 3)] == [
        True, True, False,
    ]  # fmt: skip
