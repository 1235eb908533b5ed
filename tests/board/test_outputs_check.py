"""Comparison of outputs with expected ones, with stand-ins for vart and xir, not a DPU."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.board import runner as dpu
from tutelage.board.outputs_check import SLOTS, THREADS, difference, main
from tutelage.core.expected_outputs import RESULT, ExpectedOutputs, write_expected
from tutelage.core.files import sha256_of

COUNT = 5


@pytest.fixture
def expected(fake_board: Path, fake_model: Path, tmp_path: Path) -> Path:
    """The outputs of tests/fake_board for five inputs."""
    inputs = np.stack([np.full((8, 8, 3), 10 * k + 5, np.int8) for k in range(COUNT)])
    runner, logits, results = dpu.load(fake_model).runner(1), [], []
    for image in inputs:
        results.append(runner.run(image))
        logits.append(runner.dpu_outputs(0)["down_tensor"][0].copy())
    outputs = {"down_tensor": np.stack(logits), RESULT: np.stack(results)}
    names = tuple(f"class {k}" for k in range(COUNT))
    folder = tmp_path / "expected"
    write_expected(folder, ExpectedOutputs(sha256_of(fake_model), "me", names, inputs, outputs))
    return folder


@pytest.fixture
def check(expected: Path, fake_model: Path, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Run the comparison; return its status and its report."""

    def run(*more: str) -> tuple[int, Any]:
        path = tmp_path / "report.json"
        status = main(["--model", str(fake_model), "--expected", str(expected), "--report",
                       str(path), *more])  # fmt: skip
        return status, json.loads(path.read_text()) if path.exists() else None

    return run


def _patch(monkeypatch: pytest.MonkeyPatch, work: Callable[[Any, Any], object]) -> None:
    """Replace the computation of the stand-in's network by `work`, which may call the original."""
    import vart

    monkeypatch.setattr(vart.Runner, "_run", staticmethod(work))


def _own_run() -> Callable[[Any, Any], None]:
    import vart

    run: Callable[[Any, Any], None] = vart.Runner._run
    return run


def test_equal_outputs(check: Callable[..., tuple[int, Any]], capsys: Any) -> None:
    status, report = check()
    jobs = COUNT + THREADS * COUNT
    assert (status, report["problem"], report["jobs"]) == (0, "", jobs)
    assert report["outputs"] == ["down_tensor", RESULT] and report["is_emulation"] is False
    assert f"{jobs} jobs: all outputs equal the emulation's" in capsys.readouterr().out


def test_a_flipped_bit_ends_it(
    check: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    own = _own_run()

    def flips(image: Any, scores: Any) -> None:
        own(image, scores)
        if image.mean() == 25:
            scores[0, 7] ^= 1

    _patch(monkeypatch, flips)
    status, report = check()
    line = ("input 2 (class 2), one at a time: output 'down_tensor' differs in 1 of 10 bytes, "
            "first at [7]: got -19, expected -20")  # fmt: skip
    assert (status, report["problem"], report["jobs"]) == (1, line, 2)
    assert report["details"]["values"] == [{"place": [7], "got": -19, "expected": -20}]
    assert capsys.readouterr().err == f"outputs_check: {line}\n"


def test_a_difference_that_only_concurrent_jobs_show(
    check: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, running, lock = _own_run(), [0], threading.Lock()

    def disturbed(image: Any, scores: Any) -> None:
        with lock:
            running[0] += 1
        own(image, scores)
        time.sleep(0.01)
        with lock:
            scores[0, 3] ^= running[0] > 1
            running[0] -= 1

    _patch(monkeypatch, disturbed)
    status, report = check()
    assert status == 1 and report["jobs"] >= COUNT
    assert f"in {THREADS} threads with {SLOTS} jobs each: output" in report["problem"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_does_not_end_or_fails(
    check: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    _patch(monkeypatch, lambda image, scores: ended.wait(30))
    status, report = check("--seconds", "0.2")
    ended.set()
    line = "input 0 (class 0), one at a time: no answer within 0.2 s"
    assert (status, report["problem"]) == (1, line)

    import vart

    def fails(*_: Any) -> None:
        raise RuntimeError("the DPU timed out\nmore")

    def exits(*_: Any) -> None:
        raise SystemExit

    for work, line in (
        (fails, "input 0 (class 0), one at a time: the DPU timed out"),
        (exits, "one at a time: a thread ended before its last job"),
    ):
        monkeypatch.setattr(vart.Runner, "wait", work)
        status, report = check()
        assert (status, report["problem"]) == (1, line)


def test_outputs_of_another_model_are_refused(
    check: Callable[..., tuple[int, Any]], fake_model: Path, capsys: Any
) -> None:
    fake_model.write_bytes(fake_model.read_bytes() + b"\x0a\x01x")
    assert check() == (1, None)
    assert "the outputs of another model" in capsys.readouterr().err


def test_every_byte_of_a_float_counts() -> None:
    one = np.zeros((2, 3), np.float32)
    other = one.copy()
    other[1, 2] = -0.0
    problem = difference("x", other, one)
    assert problem is not None and "1 of 24 bytes, first at [1, 2]: got -0.0" in problem.text
    assert difference("x", one, one.copy()) is None
    shape = difference("x", one[:1], one)
    assert shape is not None and "is float32 [1, 3], expected float32 [2, 3]" in shape.text
