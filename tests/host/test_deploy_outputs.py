"""`tutelage deploy` compares a board's outputs with the emulation's, on a stand-in board.

No real board was used: the DPU is this repository's emulation under the names vart and xir, changed
in tests that need other outputs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("typer", reason="host/ needs typer, which is not installed")

from tests.host.stand_ins import vai_c_xir
from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_model, make_wheel
from tutelage.__main__ import main
from tutelage.core.errors import DpuError
from tutelage.core.expected_outputs import RESULT, ExpectedOutputs
from tutelage.core.locations import DEMO_MODEL
from tutelage.dpu.runtime import vart, xir
from tutelage.host.deploy import (
    Plan,
    Report,
    deploy,
    emulated_outputs,
    installation,
    outputs,
    rollback,
    scripts,
)
from tutelage.host.ssh.errors import RemoteError

_REASON = why_not()
needs_board = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")
SEEN = ("outputs of 8 inputs (40 jobs) equal to the emulation's, "
        "3 frames classified on DPU (vart from /usr/lib/python3/site-packages)")  # fmt: skip

_FLIPS = """
own = Runner.execute_async
def flips(self, inputs, outputs, *rest):
    job = own(self, inputs, outputs, *rest)
    outputs[0].reshape(-1)[7] ^= 1
    return job
Runner.execute_async = flips
"""
_HANGS = """
import time
Runner.execute_async = lambda *arguments: time.sleep(1000)
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInBoard]:
    with StandInBoard(tmp_path_factory.mktemp("board"), dpu="emulation") as board:
        yield board


@pytest.fixture
def plan(board: StandInBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A board without releases."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    board.run("rm -rf tutelage")
    model, wheels = tmp_path / "mine", tmp_path / "wheels"
    model.mkdir()
    wheels.mkdir()
    make_wheel("psutil", wheels)
    vai_c_xir.write(DEMO_MODEL / "quantised.xmodel", model / "model.xmodel", "")
    described = (DEMO_MODEL / "model.toml").read_text()
    (model / "model.toml").write_text(described[: described.index("[provenance]")])
    (model / "images").mkdir()
    for path in sorted((DEMO_MODEL / "images").rglob("*.png"))[:3]:
        shutil.copy(path, model / "images")
    return Plan("zcu104", model, wheels, board.ssh_config)


def _go(board: StandInBoard, plan: Plan, **changes: Any) -> Report:
    return deploy([board.host], replace(plan, **changes), print)[0]


def _change(plan: Plan, text: str) -> None:
    """Change a file, so that the next deployment is another release."""
    (plan.model / "notes.txt").write_text(text)


@contextmanager
def _changed(board: StandInBoard, code: str) -> Iterator[None]:
    """Change the behaviour of the board's DPU."""
    path = board.root / "usr/lib/python3/site-packages/vart.py"
    text = path.read_text()
    path.write_text(text + code)
    try:
        yield
    finally:
        path.write_text(text)


def _assert_kept(board: StandInBoard, first: Report, failed: Report) -> str:
    """Assert that `failed` left `first` alone, and return its error."""
    assert failed.state == "failed"
    assert (board.tutelage / "current").readlink().name == first.release
    assert [path.name for path in (board.tutelage / "releases").iterdir()] == [first.release]
    return failed.error


@pytest.mark.slow
@needs_board
def test_a_wrong_output_keeps_the_old_release(
    board: StandInBoard, plan: Plan, tmp_path: Path
) -> None:
    first = _go(board, plan)
    assert (first.state, first.smoke) == ("deployed", SEEN), first.error
    _change(plan, "new")
    with _changed(board, _FLIPS):
        error = _assert_kept(board, first, _go(board, plan))
        assert error.startswith("outputs: input 0 (random, contrast 1/1), one at a time: output ")
        assert " differs in 1 of 10 bytes, first at [7]: got " in error and "\n" not in error
        (path,) = (tmp_path / "cache/tutelage/reports").iterdir()
        assert f"to report it, open an issue with {path} and the .xmodel" in error
        report = json.loads(path.read_text())
        assert report["details"]["values"][0]["place"] == [7]
        assert (report["fingerprint"], report["jobs"]) == (0x101000016010407, 0)
        assert report["board"]["model"] == "ZynqMP ZCU104 RevC"
        assert not any(place in path.read_text() for place in ("/home", str(tmp_path), board.host))
        accepted = _go(board, plan, accepted=("outputs",))
        assert accepted.state == "deployed" and accepted.smoke.startswith("accepted: outputs: ")
        back = rollback([board.host], board.ssh_config, print)[0]
        assert back.state == "failed" and " differs in 1 of 10 bytes" in back.error
    back = rollback([board.host], board.ssh_config, print)[0]
    assert (back.state, back.release, back.smoke) == ("rolled back", first.release, SEEN)
    damaged = board.tutelage / "releases" / accepted.release / ".expected/1.bin"
    data = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(data[:-1])
    back = rollback([board.host], board.ssh_config, print)[0]
    assert back.state == "failed" and ".expected/1.bin: damaged" in back.error


@pytest.mark.slow
@needs_board
def test_a_dpu_that_hangs_keeps_the_old_release(
    board: StandInBoard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _go(board, plan)
    assert first.state == "deployed", first.error
    _change(plan, "new")
    monkeypatch.setattr(scripts, "JOB_SECONDS", 1)
    with _changed(board, _HANGS):
        error = _assert_kept(board, first, _go(board, plan))
    assert "input 0 (random, contrast 1/1), one at a time: no answer within 1 s; to rep" in error
    monkeypatch.setattr(scripts, "JOB_SECONDS", 1000)
    monkeypatch.setattr(scripts, "OUTPUTS_SECONDS", 3)
    with _changed(board, _HANGS):
        error = _assert_kept(board, first, _go(board, plan))
    assert error.startswith("outputs: no result within 3 s; to report it, open an issue with ")
    monkeypatch.setattr(scripts, "OUTPUTS_SECONDS", 1000)
    monkeypatch.setattr(outputs, "OUTPUTS_SECONDS", 5)
    monkeypatch.setattr(outputs, "_SPARE_SECONDS", 0)
    with _changed(board, _HANGS):  # and nothing on the board ends it
        failed = _go(board, plan)
    assert failed.error == "outputs: during the comparison: no answer within 5 s"
    assert (board.tutelage / "current").readlink().name == first.release


@pytest.mark.slow
@needs_board
def test_altered_expected_bytes_keep_the_old_release(
    board: StandInBoard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _go(board, plan)
    _change(plan, "new")
    own = emulated_outputs.emulated_outputs

    def altered(path: Path, has_plugin: bool) -> ExpectedOutputs:
        expected = own(path, has_plugin)
        expected.outputs[RESULT][6, 3] += 1
        return expected

    monkeypatch.setattr(emulated_outputs, "emulated_outputs", altered)
    error = _assert_kept(board, first, _go(board, plan))
    assert error.startswith("outputs: input 6 (random, contrast 1/1), one at a time: ")
    assert f'output "{RESULT}" differs in ' in error and " of 40 bytes, first at [3]: got " in error


@pytest.mark.parametrize(
    "answer", ["{", "[]", "7", '{"problem": ""}', "[" * 60_000, '{"problem": "' + "x" * 70_000]
)
def test_a_board_that_gives_no_report(answer: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Board:
        def sh(self, command: str, seconds: float) -> str:
            return answer

    board: Any = Board()
    with pytest.raises(
        outputs.OutputsDiffer, match="outputs: the comparison returned no report; to "
    ):
        outputs.compare_outputs(board, "place", "model", {})


@pytest.mark.parametrize("depth", [500, 960, 980, 5000, 30_000])
def test_a_board_that_nests_lists(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Board:
        def sh(self, command: str, seconds: float) -> str:
            nested = "[" * depth + "]" * depth
            return f'{{"problem": "none", "inputs": 1, "jobs": 1, "details": {nested}}}'

    board: Any = Board()
    with pytest.raises(outputs.OutputsDiffer, match="to report it, open an issue with "):
        outputs.compare_outputs(board, "place", "model", {})


def test_a_report_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Board:
        def sh(self, command: str, seconds: float) -> str:
            raise RemoteError("/home/me/net.xmodel: Illegal instruction\x1b[2J")

    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    board: Any = Board()
    with pytest.raises(outputs.OutputsDiffer, match=r"~/net.xmodel: Illegal .*\\x1b.* this line"):
        outputs.compare_outputs(board, "place", "model", {"home": "/home/me"})


def test_a_dry_run_shows_the_comparison(tmp_path: Path, capsys: Any) -> None:
    if shutil.which("rsync") is None or shutil.which("ssh") is None:
        pytest.skip("needs ssh and rsync")
    model = make_model(tmp_path / "mine")
    assert main(["deploy", "user@host", "--model", str(model), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [i for i, line in enumerate(lines) if "tutelage.board.outputs_check" in line]
    assert len(found) == 1 and "classify.py" in lines[found[0] + 1]


def test_the_emulations_outputs_are_the_emulated_runners(tmp_path: Path) -> None:
    path = tmp_path / "net.xmodel"
    vai_c_xir.write(DEMO_MODEL / "quantised.xmodel", path, "")
    found = emulated_outputs.emulated_outputs(path)
    assert len({image.tobytes() for image in found.inputs}) == len(found.inputs) == 8
    graph = xir.Graph.deserialize(path)
    (part,) = (p for p in graph.get_root_subgraph().toposort_child_subgraph()
               if p.get_attr("device") == "DPU")  # fmt: skip
    runner = vart.Runner.create_runner(part, "run")
    (name,) = (n for n in found.outputs if n != RESULT)
    for image, wanted in zip(found.inputs, found.outputs[name], strict=True):
        output = np.zeros((1, *wanted.shape), np.int8)
        runner.wait(runner.execute_async([image[None].copy()], [output]))
        np.testing.assert_array_equal(output[0], wanted)


@pytest.mark.parametrize(
    ("name", "compared", "left_out"),
    [("mnist_dpu_pynq", 1, "softmax runs on the CPU"), ("squeezenet_dpu_pynq", 2, ""),
     ("zerodce_zcu104", 3, ""), ("mnist_prelu_zcu104_vai30", 1, "Mylayer runs on the CPU")],
)  # fmt: skip
def test_outputs_of_amds_compilers(
    shared_dir: Path, name: str, compared: int, left_out: str
) -> None:
    found = emulated_outputs.emulated_outputs(shared_dir / "models/corpus" / f"{name}.xmodel")
    assert found.compiler.startswith("xcompiler.") or found.compiler.startswith("compiler")
    assert len(found.outputs) == compared
    assert [text.partition(": ")[2] for text in found.left_out][-1:] == [left_out][: bool(left_out)]
    assert sum(array.nbytes for array in (found.inputs, *found.outputs.values())) <= 16 << 20


def test_models_without_comparable_outputs(tmp_path: Path, shared_dir: Path) -> None:
    with pytest.raises(DpuError, match="the model has 1 input, 0 DPU subgraphs and 1 output"):
        emulated_outputs.emulated_outputs(DEMO_MODEL / "quantised.xmodel")
    with pytest.raises(DpuError, match="compiled for DPUCVDX8G"):
        emulated_outputs.emulated_outputs(shared_dir / "models/corpus/mnist_cnn_vck190.xmodel")
    with pytest.raises(DpuError, match=r"not an \.xmodel"):
        emulated_outputs.emulated_outputs(make_model(tmp_path / "mine") / "model.xmodel")


def test_parts_that_are_not_compared_are_warned_of(shared_dir: Path, tmp_path: Path) -> None:
    path, report = shared_dir / "models/corpus/mnist_prelu_zcu104_vai30.xmodel", Report("board")
    installation._write_expected(tmp_path, emulated_outputs.EmulatedOutputs(path, True), report)
    assert report.warnings == [
        "outputs: not compared with the emulation's: quant_dense_sigmoid_sigmoid_fix: Mylayer runs "
        "on the CPU"
    ]
    assert (tmp_path / ".expected/1.bin").is_file()
    quantised = emulated_outputs.EmulatedOutputs(DEMO_MODEL / "quantised.xmodel", False)
    installation._write_expected(tmp_path / "none", quantised, report)
    assert "quantised.xmodel: the model has 1 input, 0 DPU subgraphs" in report.warnings[1]


def test_boards_share_computed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []
    own: Callable[..., ExpectedOutputs] = emulated_outputs.emulated_outputs

    def counted(path: Path, has_plugin: bool) -> ExpectedOutputs:
        calls.append(path)
        return own(path, has_plugin)

    monkeypatch.setattr(emulated_outputs, "emulated_outputs", counted)
    shared = emulated_outputs.EmulatedOutputs(DEMO_MODEL, False)
    assert shared.get() is shared.get() and calls == [DEMO_MODEL / "model.xmodel"]
