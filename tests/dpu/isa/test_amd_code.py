"""The code in AMD's compiled files is decoded completely, and gives the graph's values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import fingerprint_of, is_own
from tutelage.core.fixed_point import Array
from tutelage.dpu.engine.instructions import CompiledPart, InstructionEngine, place_of
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.isa.encoding import decode, encode
from tutelage.dpu.isa.machine import Machine, shape_of
from tutelage.dpu.isa.program import run
from tutelage.dpu.isa.races import run_checked
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph

PLUGINS = Path(__file__).parents[1] / "plugins.py"
SMALL = (
    "corpus/mnist_cnn_zcu104.xmodel",
    "corpus/mnist_dpu_pynq.xmodel",
    "corpus/mnist_prelu_zcu104_vai14.xmodel",
    "corpus/mnist_prelu_zcu104_vai30.xmodel",
    "mnist_prelu_zcu104_vai25.xmodel",
)
LARGE = (
    "corpus/densebox_kv260.xmodel",
    "corpus/googlenet_hash_b1152.xmodel",
    "corpus/plate_detect_kv260.xmodel",
    "corpus/squeezenet_dpu_pynq.xmodel",
    "corpus/ssd_adas_kv260.xmodel",
    "corpus/zerodce_zcu104.xmodel",
)
LAYERS = (
    ("corpus/densebox_kv260.xmodel", 13),
    ("corpus/googlenet_hash_b1152.xmodel", 24),
    ("corpus/plate_detect_kv260.xmodel", 13),
    ("corpus/ssd_adas_kv260.xmodel", 35),
    ("pointpillars_zcu104_vai25.xmodel", 23),
)
"""Files with the code of single layers, and how many have some."""
PILLARS = "pointpillars_zcu104_vai25.xmodel"


def _subgraphs(part: Subgraph) -> Iterator[Subgraph]:
    yield part
    for child in part.get_children():
        yield from _subgraphs(child)


def _inputs(model: Model) -> list[Array]:
    rng = np.random.default_rng(1)
    shapes = [(op, op.get_output_tensor().dims) for op in model.program.inputs]
    # The other input of PointPillars' scatter has coordinates, all 0 here.
    return [
        np.zeros(dims, np.float32)
        if op.get_type() == "data" and "input_4" in op.get_name()
        else rng.integers(-128, 128, dims).astype(np.int8)
        for op, dims in shapes
    ]


def _load(path: Path, engine: str, **options: Any) -> Model:
    return load_engine(path, engine, load_plugins(PLUGINS), **options)


@pytest.mark.filterwarnings("ignore::tutelage.core.errors.UnsortedWarning")
@pytest.mark.slow
def test_all_code_is_read_and_written_byte_for_byte(shared_dir: Path) -> None:
    count = 0
    for path in sorted((shared_dir / "models").rglob("*.xmodel")):
        if path.name == "damaged_by_git.xmodel":
            continue
        for part in Graph.deserialize(path).get_root_subgraph().toposort_child_subgraph():
            fingerprint = fingerprint_of(part)
            if fingerprint is None or not is_own(fingerprint):
                continue
            for each in _subgraphs(part):
                code = each.get_attr("mc_code") if each.has_attr("mc_code") else b""
                if code:
                    found = decode(code, shape_of(fingerprint).isa)
                    assert encode(found) == code, (path, each)
                    count += len(found)
    assert count > 170_000


def _compare(path: Path) -> None:
    own, other = _load(path, "instructions"), _load(path, "fast")
    found, wanted = own.run_all(*_inputs(own)), other.run_all(*_inputs(other))
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], str(path))


@pytest.mark.parametrize("name", SMALL)
def test_small_files_give_the_same(shared_dir: Path, name: str) -> None:
    _compare(shared_dir / "models" / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LARGE, PILLARS])
def test_large_files_give_the_same(shared_dir: Path, name: str) -> None:
    _compare(shared_dir / "models" / name)


def _parts(path: Path) -> Iterator[tuple[CompiledPart, dict[str, Array]]]:
    """DPU subgraphs, with the values of all ops for some input by the fast engine."""
    model = _load(path, "fast", trace=True)
    inputs = _inputs(model)
    values = {op.get_name(): array for op, array in zip(model.program.inputs, inputs, strict=True)}
    values |= model.trace(*inputs) | model.program.constants
    for part in model.graph.get_root_subgraph().toposort_child_subgraph():
        if part.has_attr("mc_code") and part.get_attr("mc_code"):
            yield CompiledPart(part), values


def _check_orders(path: Path, seeds: range) -> None:
    for part, values in _parts(path):
        for seed in seeds:
            for name, found in part.run(values, seed).items():
                np.testing.assert_array_equal(found, values[name], f"{path} seed {seed}")
        registers = part.registers()
        for name, place in part.inputs.items():
            place.view(registers)[...] = values[name]
        run_checked(part.code, Machine(part.shape, registers))


@pytest.mark.parametrize("name", SMALL)
def test_any_legal_order_gives_the_same_and_nothing_races(shared_dir: Path, name: str) -> None:
    _check_orders(shared_dir / "models" / name, range(10))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LARGE, PILLARS])
def test_large_files_in_any_legal_order(shared_dir: Path, name: str) -> None:
    _check_orders(shared_dir / "models" / name, range(10))


def _layer(child: Subgraph, part: CompiledPart, values: dict[str, Array]) -> bool:
    """Run the code of one layer on the graph's values; return False if it has none."""
    if not (child.has_attr("mc_code") and child.get_attr("mc_code")):
        return False
    registers = part.registers()
    inside = child.get_ops()
    sources = {s for op in inside for ops in op.get_input_ops().values() for s in ops}
    for op in sources - inside:
        _put(op, values, registers)
    run(decode(child.get_attr("mc_code"), part.shape.isa), Machine(part.shape, registers))
    compared = False
    for op in inside:
        readers = op.get_fanout_ops()
        if all(reader in inside for reader in readers) or not op.get_output_tensor().has_attr(
            "ddr_addr"
        ):
            continue
        found = place_of(op.get_output_tensor()).view(registers)
        np.testing.assert_array_equal(found, values[op.get_name()], child.get_name())
        compared = True
    return compared


def _put(op: Op, values: dict[str, Array], registers: dict[int, Array]) -> None:
    try:
        place = place_of(op.get_output_tensor())
    except UnsupportedError:
        return
    if place.register != 0 and op.get_name() in values:
        place.view(registers)[...] = values[op.get_name()]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("corpus/mnist_dpu_pynq.xmodel", 3),
        ("corpus/mnist_prelu_zcu104_vai14.xmodel", 4),
        ("mnist_prelu_zcu104_vai25.xmodel", 5),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in LAYERS),
    ],
)
def test_layer_by_layer(shared_dir: Path, name: str, layers: int) -> None:
    done = 0
    for part, values in _parts(shared_dir / "models" / name):
        done += sum(_layer(child, part, values) for child in part.subgraph.get_children())
    assert done == layers


def test_values_within_a_subgraph_are_refused(shared_dir: Path) -> None:
    path = shared_dir / "models" / SMALL[0]
    graph = Graph.deserialize(path)
    engine = InstructionEngine(build_program(graph))
    feeds = {op.get_name(): np.zeros(op.get_output_tensor().dims, np.int8)
             for op in engine.program.inputs}  # fmt: skip
    inner = next(op for op in engine.program.steps if op.get_type() == "conv2d-fix")
    with pytest.raises(UnsupportedError, match="does not leave its DPU subgraph"):
        engine.compute(feeds, {inner.get_name()})


def test_a_file_without_code_is_refused(demo_model: Path, emulator_model: Path) -> None:
    with pytest.raises(UnsupportedError, match="has no DPU code"):
        load_engine(emulator_model, "instructions")
    with pytest.raises(UnsupportedError, match="is not compiled"):
        load_engine(demo_model.with_name("quantised.xmodel"), "instructions")
