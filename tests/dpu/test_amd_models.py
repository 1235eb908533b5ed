"""Real models that AMD's tools compiled for the ZCU104, through both engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tutelage.dpu.engine.program import build_program
from tutelage.dpu.engine.reference import Model, load_engine, make_engine
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.xmodel.file import read_graph
from tutelage.dpu.xmodel.graph import Graph

PLUGINS = Path(__file__).with_name("plugins.py")
MNIST = "mnist_prelu_zcu104_vai25.xmodel"
PILLARS, PILLARS_QUANTISED = "pointpillars_zcu104_vai25.xmodel", "pointpillars_quantized.xmodel"


def _assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        # The reference has some real values in float64, but int8 values must be int8.
        assert (found[name].dtype == np.int8) == (values.dtype == np.int8), name
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_mnist_classifies_digits_and_the_engines_agree(shared_dir: Path) -> None:
    digits = np.load(shared_dir / "data" / "mnist_digits.npz")
    images = digits["images"].reshape(-1, 28, 28, 1).astype(np.float32)
    plugins = load_plugins(PLUGINS)
    path = shared_dir / "models" / MNIST
    fast, reference = (
        load_engine(path, engine, plugins, trace=True) for engine in ("fast", "reference")
    )
    scores = fast.run(images)
    assert np.mean(scores.argmax(1) == digits["labels"]) >= 0.99
    _assert_same(fast.trace(images[:100]), reference.trace(images[:100]))


@pytest.mark.slow
def test_pointpillars_dpu_parts(shared_dir: Path) -> None:
    graph = Graph.deserialize(shared_dir / "models" / PILLARS)
    rng = np.random.default_rng(0)
    parts = 0
    for part in graph.get_root_subgraph().toposort_child_subgraph():
        if part.get_attr("device") != "DPU":
            continue
        parts += 1
        program = build_program(graph, part)
        feeds = {
            op.get_name(): rng.integers(-128, 128, op.get_output_tensor().dims, dtype=np.int8)
            for op in program.inputs
        }
        keep = {op.get_name() for op in program.steps}
        fast = make_engine(program, "fast", trace=True).compute(feeds, keep)
        _assert_same(fast, make_engine(program, "reference").compute(feeds, keep))
    assert parts == 2


def _pillars(model: Model) -> list[np.ndarray]:
    """Random points for the model's inputs, with every pillar in a different cell."""
    rng = np.random.default_rng(1)
    arrays = []
    for op in model.program.inputs:
        dims = op.get_output_tensor().dims
        if len(dims) == 3:  # coordinates (batch, z, y, x)
            cells = rng.permutation(496 * 432)[: dims[1]]
            array = np.zeros(dims, np.float32)
            array[0, :, 2], array[0, :, 3] = np.divmod(cells, 432)
        else:
            array = (rng.standard_normal(dims) / 2).astype(np.float32)
        arrays.append(array)
    return arrays


@pytest.mark.docs
def test_quantised_pointpillars_from_end_to_end(shared_dir: Path) -> None:
    """All of its ops: two sequences of built-in ones, with a plugin's scatter in between."""
    path, plugins = shared_dir / "models" / PILLARS_QUANTISED, load_plugins(PLUGINS)
    fast = load_engine(path, "fast", plugins, trace=True)
    inputs = _pillars(fast)
    reference = load_engine(path, "reference", plugins)
    wanted = reference.trace(*inputs)
    assert len(wanted) > 70
    _assert_same(fast.trace(*inputs), wanted)


@pytest.mark.slow
def test_the_quantised_and_the_compiled_pointpillars_agree(shared_dir: Path) -> None:
    """AMD's quantised file and the file that AMD's compiler made from it give the same."""
    plugins, results = load_plugins(PLUGINS), []
    for name in (PILLARS_QUANTISED, PILLARS):
        model = load_engine(shared_dir / "models" / name, "fast", plugins)
        by_rank = {array.ndim: array for array in _pillars(model)}
        ranks = [op.get_output_tensor().ndim for op in model.program.inputs]
        results.append(list(model.run_all(*(by_rank[rank] for rank in ranks)).values()))
    by_channels = [{array.shape[-1]: array for array in arrays} for arrays in results]
    assert by_channels[0].keys() == by_channels[1].keys() == {12, 18, 42}
    for channels, array in by_channels[0].items():
        np.testing.assert_array_equal(array, by_channels[1][channels])


@pytest.mark.parametrize("name", [MNIST, PILLARS, PILLARS_QUANTISED])
def test_files_survive_reading_and_writing(shared_dir: Path, tmp_path: Path, name: str) -> None:
    path, copy = shared_dir / "models" / name, tmp_path / "copy.xmodel"
    Graph.deserialize(path).serialize(copy)
    assert read_graph(copy) == read_graph(path)
