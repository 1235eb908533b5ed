"""The engine "instructions" in the command line, the emulated runners and the application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.__main__ import main
from tutelage.app.image_classifier import ImageClassifier
from tutelage.board.model_parts import ModelError
from tutelage.core.errors import UnsupportedError
from tutelage.dpu.runtime import device, vart, xir

NAME = "models/corpus/mnist_cnn_zcu104.xmodel"


def _run_part(graph: xir.Graph) -> np.ndarray[Any, Any]:
    """Return the first output of the DPU subgraph, from a runner as in board scripts."""
    part = next(
        each
        for each in graph.get_root_subgraph().toposort_child_subgraph()
        if each.get_attr("device") == "DPU"
    )
    runner = vart.Runner.create_runner(part, "run")
    source, result = runner.get_input_tensors()[0], runner.get_output_tensors()[0]
    x = np.random.default_rng(0).integers(-128, 128, source.dims).astype(np.int8)
    y = np.zeros(result.dims, np.int8)
    runner.wait(runner.execute_async([x], [y]))
    return y


def test_a_runner_executes_the_code(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = xir.Graph.deserialize(str(shared_dir / NAME))
    wanted = _run_part(graph)
    monkeypatch.setenv(device.ENGINE_VARIABLE, "instructions")
    np.testing.assert_array_equal(_run_part(graph), wanted)
    assert wanted.any()


def test_a_runner_needs_code(emulator_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.ENGINE_VARIABLE, "instructions")
    with pytest.raises(UnsupportedError, match="has no DPU code"):
        _run_part(xir.Graph.deserialize(str(emulator_model)))


def test_the_classifier_executes_the_code(shared_dir: Path, emulator_model: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (28, 28, 3)).astype(np.uint8)
    fast, own = (
        ImageClassifier(shared_dir / NAME, engine=name) for name in ("fast", "instructions")
    )
    assert own.classify(image).top == fast.classify(image).top
    with pytest.raises(ModelError, match="has no DPU code"):
        ImageClassifier(emulator_model, engine="instructions")


def test_run_in_any_legal_order(shared_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.npy"
    np.save(source, np.random.default_rng(0).uniform(-1, 1, (2, 28, 28, 1)).astype(np.float32))
    found = []
    for number, more in enumerate(("fast", "instructions", "instructions --order 7")):
        target = tmp_path / f"{number}.npy"
        arguments = ["--input", str(source), "--output", str(target), "--engine", *more.split()]
        assert main(["run", str(shared_dir / NAME), *arguments]) == 0
        found.append(np.load(target))
    assert found[0].any()
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_an_order_is_of_instructions(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", "in.npy", "--output", str(tmp_path / "out.npy"), "--order", "1"]
    assert main(["run", str(demo_model), *arguments]) == 2
    assert "--order needs --engine instructions" in capsys.readouterr().err
