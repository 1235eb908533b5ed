"""The quantised form and the emulator's compiler, against AMD's files and each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.dpu.test_amd_models import PILLARS, PILLARS_QUANTISED, PLUGINS, _pillars
from tests.random_networks import Twins, networks
from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.emulation import compile_graph, fuse, on_cpu
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.ops.data import constant
from tutelage.dpu.ops.fix import QUANTISED
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.xmodel.file import read_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op_types import definitions

# Attributes of AMD's compiler for instructions, addresses and its own figures only.
COMPILERS_OWN = {
    "workload", "workload_on_arch", "hsigmoid_in", "shift_hswish", "shift_hsigmoid", "in_dim",
    "out_dim", "group", "bias_term", "pad",
}  # fmt: skip


@pytest.fixture(scope="module")
def pillars(shared_dir: Path) -> tuple[Graph, Graph, Graph]:
    """PointPillars quantised by AMD, compiled by us, compiled by AMD."""
    quantised, amd = (
        Graph.deserialize(shared_dir / "models" / name) for name in (PILLARS_QUANTISED, PILLARS)
    )
    return quantised, compile_graph(quantised), amd


def _stretches(graph: Graph) -> list[tuple[str, int]]:
    children = graph.get_root_subgraph().toposort_child_subgraph()
    return sorted((child.get_attr("device"), child.get_op_num()) for child in children)


def test_pointpillars_is_partitioned_as_by_amd(pillars: tuple[Graph, Graph, Graph]) -> None:
    _, ours, amd = pillars
    dpu = [part for part in _stretches(amd) if part[0] == "DPU"]
    assert (
        [part for part in _stretches(ours) if part[0] == "DPU"] == dpu == [("DPU", 6), ("DPU", 71)]
    )
    assert [device for device, _ in _stretches(ours)] == [device for device, _ in _stretches(amd)]


def test_pointpillars_layers_are_amds(pillars: tuple[Graph, Graph, Graph]) -> None:
    """Every op that runs on the DPU: type, name, tensor, fix point, attributes, parameters."""
    _, ours, amd = pillars
    compared = 0
    for op in amd.get_ops():
        if not op.get_type().endswith("-fix") or op.get_type() == "data-fix":
            continue
        own = ours.get_op(op.get_name())
        tensor, wanted = own.get_output_tensor(), op.get_output_tensor()
        assert own.get_type() == op.get_type()
        assert (tensor.dims, tensor.dtype) == (wanted.dims, wanted.dtype)
        assert tensor.get_attr("fix_point") == wanted.get_attr("fix_point")
        assert tensor.name.partition("_inserted")[0] == wanted.name.partition("_inserted")[0]
        if op.get_type() == "const-fix":
            np.testing.assert_array_equal(constant(ours, own), constant(amd, op))
        else:
            attrs = {k: v for k, v in op.get_attrs().items() if k not in COMPILERS_OWN}
            assert attrs.items() <= own.get_attrs().items()
        compared += 1
    assert compared > 70


@pytest.mark.slow
def test_pointpillars_equals_amds_file(pillars: tuple[Graph, Graph, Graph]) -> None:
    plugins, results = load_plugins(PLUGINS), []
    for graph in pillars[1:]:
        model = load_engine(graph, "fast", plugins)
        by_rank = {array.ndim: array for array in _pillars(model)}
        arrays = [by_rank[op.get_output_tensor().ndim] for op in model.program.inputs]
        results.append({a.shape[-1]: a for a in model.run_all(*arrays).values()})
    assert results[0].keys() == results[1].keys() == {12, 18, 42}
    for channels, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][channels])


def test_layers_left_to_the_cpu_are_reported(pillars: tuple[Graph, Graph, Graph]) -> None:
    reasons = on_cpu(pillars[0])
    assert sorted(reasons.values()) == [
        "the DPU has no PPScatterV2",
        *["the DPU has no transpose"] * 2,
    ]


def test_op_defs_are_those_of_amds_exporter(shared_dir: Path) -> None:
    known = {d.name: d for d in read_graph(shared_dir / "models" / PILLARS_QUANTISED).op_defs}
    ours = definitions(known)
    assert len(ours) == 16
    for definition in ours:
        wanted = known[definition.name]
        wanted.annotation = ""
        for item in (*wanted.input_args, *wanted.attrs):
            item.annotation = ""
        assert definition == wanted


@pytest.mark.slow
@given(networks(Twins))
@settings(max_examples=60, deadline=None)
def test_quantised_compiled_and_built_are_one_function(case: tuple[Any, np.ndarray]) -> None:
    """The same random network, built in both forms, and the quantised one compiled."""
    (built, quantised), images = case
    compiled = compile_graph(quantised)
    wanted = load_engine(built, "reference").run(images)
    point = built.get_op("image").get_output_tensor().get_attr("fix_point")
    real = images.astype(np.float32) * np.float32(2.0**-point)
    for graph in (quantised, compiled):
        for engine in ("fast", "reference"):
            np.testing.assert_array_equal(load_engine(graph, engine).run(real), wanted)


@given(networks(Twins))
@settings(max_examples=20, deadline=None)
def test_legal_networks_run_on_the_dpu_alone(case: tuple[Any, np.ndarray]) -> None:
    (_, quantised), _ = case
    devices = [device for device, _ in _stretches(compile_graph(quantised))]
    assert devices == ["CPU", "DPU", "USER"] and not on_cpu(quantised)


def _one_conv(kernel: int, stride: int = 1, points: tuple[int, int, int] = (5, 5, 3)) -> Graph:
    model = QuantisedModel("one")
    x = model.input("image", (1, 20, 20, 3), points[0])
    rng = np.random.default_rng(0)
    for number in range(3):
        size = kernel if number == 1 else 1
        weights = rng.integers(-9, 9, (3, size, size, 3), np.int8)
        bias = rng.integers(-9, 9, 3, np.int8)
        out = points[2] if number == 1 else _point(x)
        weights_point = points[1] if number == 1 else 0
        step = stride if number == 1 else 1
        x = model.conv2d(
            f"conv{number}", x, weights, weights_point, bias, out, out, stride=(step, step)
        )
    model.output(x)
    return model.finish()


def _point(op: Any) -> int:
    return int(op.get_attr("fix_point"))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (_one_conv(17), "kernel 17x17; the DPU supports 1 to 16"),
        (_one_conv(2, 9), "stride 9x9; the DPU supports 1 to 8"),
        (_one_conv(2, points=(5, 20, 3)), "output shift 22; the DPU supports 0 to 16"),
        (_one_conv(2, points=(5, -4, 3)), "output shift -2; the DPU supports 0 to 16"),
    ],
)
def test_beyond_the_dpus_limits_the_cpu_computes(graph: Graph, reason: str) -> None:
    assert on_cpu(graph) == {"one__conv1": reason}
    compiled = compile_graph(graph)
    assert [d for d, _ in _stretches(compiled)] == ["CPU", "CPU", "DPU", "DPU", "USER"]
    images = np.random.default_rng(1).integers(-128, 128, (4, 20, 20, 3), np.int8)
    real = images.astype(np.float32) / 32
    wanted = load_engine(graph, "reference").run(real)
    for engine in ("fast", "reference"):
        np.testing.assert_array_equal(load_engine(compiled, engine).run(real), wanted)


def _layer(kind: str, **options: Any) -> Graph:
    """A layer of a kind between two convolutions, 20x20x3."""
    model = QuantisedModel("one")
    matrix = np.array([[3, 1, -2], [4, 0, 1], [-1, 5, 2]], np.int8).reshape(3, 1, 1, 3)
    x = model.input("image", (1, 20, 20, 3), 5)
    x = model.conv2d("first", x, matrix, 2, None, 0, 4)
    if kind == "depthwise_conv2d":
        size = options.pop("size")
        weights = np.random.default_rng(2).integers(-3, 4, (1, size, size, 3), dtype=np.int8)
        x = model.depthwise_conv2d("layer", x, weights, 4, None, 0, 4, **options)
    elif kind == "conv2d":
        x = model.conv2d("layer", x, matrix, 2, None, 0, 4, **options)
    elif kind == "add":
        x = model.add("layer", [x, x], 4, **options)
    elif kind == "pool_relu":
        x = model.max_pool("layer", x, (3, 3), (2, 2), nonlinear="RELU")
    else:
        x = getattr(model, kind)("layer", x, **options)
    model.output(model.conv2d("last", x, matrix, 2, None, 0, 6))
    return model.finish()


LEGAL: list[tuple[str, dict[str, Any]]] = [
    ("depthwise_conv2d", {"size": 20}),
    ("depthwise_conv2d", {"size": 3, "stride": (9, 9), "nonlinear": "RELU"}),
    ("avg_pool", {"kernel": (3, 3), "stride": (2, 2), "fix_point": 4, "pad": (1, 1, 1, 1)}),
    ("avg_pool", {"kernel": (18, 3), "stride": (2, 2), "fix_point": 4, "pad": (15, 17, 0, 0)}),
    ("max_pool", {"kernel": (3, 3), "stride": (2, 2), "ceil": True}),
    ("pool_relu", {}),
    ("conv2d", {"nonlinear": "LEAKYRELU"}),
    ("conv2d", {"nonlinear": "RELU6"}),
    ("add", {"nonlinear": "RELU"}),
]


@pytest.mark.parametrize(("kind", "options"), LEGAL, ids=str)
def test_layers_allowed_by_the_zcu104s_target_are_compiled(
    kind: str, options: dict[str, Any]
) -> None:
    """Limits of the target's description (AMD's target_factory); values of the quantised file."""
    graph = _layer(kind, **dict(options))
    compiled = compile_graph(graph)
    assert on_cpu(graph) == {}
    assert [device for device, _ in _stretches(compiled)] == ["CPU", "DPU", "USER"]
    _assert_alike(graph, compiled)


ILLEGAL: list[tuple[str, dict[str, Any], str]] = [
    ("add", {"nonlinear": "RELU6"}, "the DPU cannot fuse this relu6 into add"),
    ("add", {"nonlinear": "LEAKYRELU"}, "the DPU cannot fuse this leaky-relu into add"),
    ("depthwise_conv2d", {"size": 3, "nonlinear": "LEAKYRELU"},
     "the DPU cannot fuse this leaky-relu into depthwise-conv2d"),
    ("max_pool", {"kernel": (20, 3), "stride": (1, 1), "pad": (16, 0, 0, 0)},
     "padding [16, 0, 0, 0]; the DPU supports up to [15, 255, 15, 255]"),
]  # fmt: skip


def test_a_value_that_is_read_before_and_behind_the_cpu(tmp_path: Path) -> None:
    """Each DPU subgraph reads only what is uploaded to it."""
    rng, model = np.random.default_rng(3), QuantisedModel("around")
    weights = [rng.integers(-9, 9, (4, 1, 1, 4), dtype=np.int8) for _ in range(2)]
    bias = np.zeros(4, np.int8)
    x = model.input("x", (1, 6, 5, 4), 4)
    a = model.conv2d("a", x, weights[0], 5, bias, 4, 4)
    b = model.conv2d("b", a, weights[1], 5, bias, 4, 4)
    model.output(model.add("sum", [a, b], 4))
    graph = model.finish()
    (refused,) = [op.get_name() for op in graph.get_ops() if op.get_name().endswith("__b")]
    fused = fuse(graph, {refused: "for the test"}).graph
    fused.serialize(tmp_path / "fused.xmodel")
    found = Graph.deserialize(tmp_path / "fused.xmodel")
    parts = found.get_root_subgraph().toposort_child_subgraph()
    on_dpu = [part for part in parts if part.get_attr("device") == "DPU"]
    assert len(on_dpu) == 2
    for part in on_dpu:
        for op in part.get_ops():
            outside = [o for ops in op.get_input_ops().values() for o in ops if not part.has_op(o)]
            assert op.get_type() == "upload" or not outside
    images = rng.uniform(-8, 8, (3, 6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(load_engine(found).run(images), load_engine(graph).run(images))


@pytest.mark.parametrize(("kind", "options", "reason"), ILLEGAL)
def test_unsupported_layers_stay_on_the_cpu(
    kind: str, options: dict[str, Any], reason: str
) -> None:
    graph = _layer(kind, **dict(options))
    assert on_cpu(graph)["one__layer"] == reason
    _assert_alike(graph, compile_graph(graph))


def _assert_alike(graph: Graph, compiled: Graph) -> None:
    images = np.random.default_rng(3).integers(-128, 128, (4, 20, 20, 3), np.int8)
    real = images.astype(np.float32) / 32
    wanted = load_engine(graph, "reference").run(real)
    assert len(np.unique(wanted)) > 4
    for each in (graph, compiled):
        for engine in ("fast", "reference"):
            np.testing.assert_array_equal(load_engine(each, engine).run(real), wanted)


def test_a_value_that_only_concats_read_is_rounded_by_them() -> None:
    """AMD's exporter writes such models (PointPillars); tested in memory and from a file."""
    model = QuantisedModel("cat")
    x = model.input("image", (1, 4, 4, 2), 5)
    weights = np.ones((2, 1, 1, 2), np.int8)
    new = model.conv2d("new", x, weights, 3, None, 0, 5, nonlinear="RELU")
    model.output(model.concat("both", [x, new]))
    graph = model.finish()
    assert graph.get_op("cat__both").get_input_op("input", 1).get_type() == "relu"
    assert graph.get_op("cat__both").get_input_op("input", 0).get_name() == "cat__image_fix"


@pytest.mark.parametrize("reader", ["concat", "add", "fix"])
def test_a_bilinear_resize_mixes_values(reader: str) -> None:
    """Its result is not on a grid until a fix rounds it, before or after a concat or a sum."""
    raw = _Raw()
    attrs = {"scale": [2.0, 2.0], "mode": "BILINEAR", "half_pixel_centers": True}
    up = raw.op("up", "resize", raw.x, **attrs)
    same = raw.op("same", "resize", raw.x, scale=[2.0, 2.0], mode="NEAREST")
    joined = {
        "concat": lambda: raw.op("y", "concat", same, up, axis=3),
        "add": lambda: raw.op("y", "add", same, up),
        "fix": lambda: raw.op("y", "mul", raw.fix("rounded", up, 6), same),
    }[reader]()
    graph = raw.returns(raw.fix("out", joined, 5))
    images = np.random.default_rng(6).integers(-128, 128, (4, 6, 6, 3), np.int8) / np.float32(32)
    wanted = load_engine(graph, "reference").run(images)
    for each in (graph, compile_graph(graph)):
        for engine in ("reference", "fast"):
            np.testing.assert_array_equal(load_engine(each, engine).run(images), wanted)


def test_a_factor_for_each_channel_may_come_first() -> None:
    raw = _Raw()
    attrs = {"kernel": [6, 6], "stride": [6, 6], "pad_mode": "FLOOR"}
    factor = raw.op("pool", "maxpool2d", raw.x, **attrs)
    graph = raw.returns(raw.fix("out", raw.op("y", "mul", factor, raw.x), 5))
    assert on_cpu(graph) == {}
    images = np.random.default_rng(7).integers(-128, 128, (4, 6, 6, 3), np.int8) / np.float32(32)
    found, wanted = (load_engine(each).run(images) for each in (compile_graph(graph), graph))
    np.testing.assert_array_equal(found, wanted)


def test_files_round_trip_and_name_the_emulator(tmp_path: Path) -> None:
    graph = _one_conv(3)
    for made, name in ((graph, "quantised.xmodel"), (compile_graph(graph), "compiled.xmodel")):
        made.serialize(tmp_path / name)
        Graph.deserialize(tmp_path / name).serialize(tmp_path / "again.xmodel")
        assert read_graph(tmp_path / name) == read_graph(tmp_path / "again.xmodel")
    (dpu,) = [
        child
        for child in made.get_root_subgraph().get_children()
        if child.get_attr("device") == "DPU"
    ]
    assert dpu.get_attr("dpu_name") == EMULATOR_DPU_NAME
    with pytest.raises(UnsupportedError, match="already compiled"):
        compile_graph(made)


def test_two_branches_of_the_dpu_keep_their_own_parameters() -> None:
    """Each DPU subgraph has its own REG_0."""
    model = CompiledModel("two")
    weights = np.arange(1, 5, dtype=np.int8).reshape(2, 1, 1, 2)
    for number in range(2):
        x = model.input(f"image{number}", (1, 2, 2, 2), 4)
        model.output(model.conv2d(f"conv{number}", x, weights + number, 0, None, 0, 4))
    graph = model.finish()
    assert [part for part in _stretches(graph) if part[0] == "DPU"] == [("DPU", 4), ("DPU", 4)]
    for number in range(2):
        op = graph.get_op(f"conv{number}_weights")
        np.testing.assert_array_equal(constant(graph, op), weights + number)


# -- graphs that only other exporters than QuantisedModel write -------------------------------


class _Raw:
    """A quantised graph op by op: 6x6x3 images of fix point 5, 1x1 convolutions."""

    def __init__(self) -> None:
        self.model, self.rng = QuantisedModel("raw"), np.random.default_rng(0)
        self.x = self.model.input("image", (1, 6, 6, 3), 5)

    def op(self, name: str, kind: str, *inputs: Any, **attrs: Any) -> Any:
        return self.model.graph.create_op(name, kind, attrs, {"input": list(inputs)})

    def fix(self, name: str, x: Any, point: int, **attrs: Any) -> Any:
        return self.op(name, "fix", x, **{**QUANTISED, "fix_point": point, **attrs})

    def parameter(self, name: str, *shape: int, point: int = 6) -> Any:
        values = self.rng.integers(-40, 40, shape, dtype=np.int8)
        return self.model._constant(name, values, point)

    def conv(self, name: str, x: Any, weights: Any = None, bias: Any = None) -> Any:
        weights = weights or self.parameter(f"{name}_weights", 3, 1, 1, 3)
        inputs = {"input": [x], "weights": [weights], **({"bias": [bias]} if bias else {})}
        attrs = {"kernel": [1, 1], "stride": [1, 1], "pad_mode": "FLOOR"}
        return self.model.graph.create_op(name, "conv2d", attrs, inputs)

    def returns(self, *ops: Any) -> Graph:
        names = [op.get_name() for op in ops]
        self.model.graph.set_attr("return_ops", names, "string_vec_value")
        return self.model.graph


def _read_before_its_relu(raw: _Raw) -> Graph:
    conv = raw.conv("conv", raw.x)
    return raw.returns(conv, raw.fix("out", raw.op("relu", "relu", conv), 2))


def _read_before_its_fix(raw: _Raw) -> Graph:
    conv = raw.conv("conv", raw.x)
    return raw.returns(raw.fix("out", raw.conv("next", raw.fix("fix", conv, 2)), 2), conv)


def _read_before_its_concat(raw: _Raw) -> Graph:
    conv = raw.conv("conv", raw.x)
    return raw.returns(conv, raw.fix("out", raw.op("both", "concat", conv, raw.x, axis=3), 5))


def _input_is_output(raw: _Raw) -> Graph:
    return raw.returns(raw.x.get_input_op("input"), raw.fix("out", raw.conv("conv", raw.x), 3))


def _four_bits_behind_eight(raw: _Raw) -> Graph:
    eight = raw.fix("eight", raw.conv("conv", raw.x), 3)
    return raw.returns(raw.fix("four", eight, 3, bit_width=4))


def _unsigned_behind_signed(raw: _Raw) -> Graph:
    signed = raw.fix("signed", raw.conv("conv", raw.x), 3)
    return raw.returns(raw.fix("unsigned", signed, 3, if_signed=False))


def _four_bits_behind_a_pool(raw: _Raw) -> Graph:
    eight = raw.fix("eight", raw.conv("conv", raw.x), 3)
    pool = raw.op("pool", "maxpool2d", eight, kernel=[2, 2], stride=[2, 2], pad_mode="FLOOR")
    return raw.returns(raw.fix("four", pool, 3, bit_width=4))


def _other_rounding(raw: _Raw) -> Graph:
    return raw.returns(raw.fix("out", raw.conv("conv", raw.x), 2, round_mode="STD_ROUND"))


def _other_rounding_of_weights(raw: _Raw) -> Graph:
    weights = raw.parameter("weights", 3, 1, 1, 3).get_input_op("input")
    rounded = raw.fix("rounded", weights, 5, round_mode="PY3_ROUND")
    return raw.returns(raw.fix("out", raw.conv("conv", raw.x, rounded), 2))


def _shared_parameters(raw: _Raw) -> Graph:
    """Read by two convolutions with another device in between, and as weights and bias."""
    weights, bias = raw.parameter("weights", 3, 1, 1, 3), raw.parameter("bias", 3)
    first = raw.fix("first_fix", raw.conv("first", raw.x, weights, bias), 5)
    second = raw.fix("second_fix", raw.conv("second", first, weights, bias), 5)
    third = raw.conv("third", raw.fix("gate", raw.op("sigmoid", "sigmoid", second), 7), weights)
    return raw.returns(raw.fix("out", third, 4))


def _reshaped_weights(raw: _Raw) -> Graph:
    weights = raw.op("reshape", "reshape", raw.parameter("weights", 3, 3), shape=[3, 1, 1, 3])
    return raw.returns(raw.fix("out", raw.conv("conv", raw.x, weights), 3))


def _computed_constant(raw: _Raw) -> Graph:
    parts = raw.parameter("a", 1, 6, 6, 1), raw.parameter("b", 1, 6, 6, 2)
    both = raw.fix("both_fix", raw.op("both", "concat", *parts, axis=3), 6)
    pool = raw.op("pool", "maxpool2d", both, kernel=[1, 1], stride=[1, 1], pad_mode="FLOOR")
    return raw.returns(raw.fix("out", raw.op("sum", "add", raw.x, pool), 3))


def _bias_that_the_dpu_would_round(raw: _Raw) -> Graph:
    weights = raw.parameter("weights", 3, 1, 1, 3, point=2)
    conv = raw.conv("conv", raw.x, weights, raw.parameter("bias", 3, point=9))
    return raw.returns(raw.fix("out", conv, 3))


def _global_pool_with_a_pad(raw: _Raw) -> Graph:
    attrs = {"kernel": [2, 2], "stride": [1, 1], "pad": [1, 1, 1, 1], "global": True}
    pool = raw.op("pool", "avgpool2d", raw.x, pad_mode="FLOOR", **attrs)
    return raw.returns(raw.fix("out", pool, 6))


def _equal_fixes(raw: _Raw) -> Graph:
    conv = raw.conv("conv", raw.x)
    one, other = raw.fix("one", conv, 3), raw.fix("other", conv, 3)
    return raw.returns(raw.fix("out", raw.op("sum", "add", one, other), 3), one)


@pytest.mark.parametrize(
    "build",
    [
        _read_before_its_relu, _read_before_its_fix, _read_before_its_concat, _input_is_output,
        _four_bits_behind_eight, _unsigned_behind_signed, _four_bits_behind_a_pool,
        _other_rounding, _other_rounding_of_weights, _shared_parameters, _reshaped_weights,
        _computed_constant, _bias_that_the_dpu_would_round, _global_pool_with_a_pad, _equal_fixes,
    ],
)  # fmt: skip
def test_other_exporters_graphs_keep_their_outputs(
    build: Callable[[_Raw], Graph], tmp_path: Path
) -> None:
    graph = build(_Raw())
    compile_graph(graph).serialize(tmp_path / "compiled.xmodel")
    images = np.random.default_rng(1).integers(-128, 128, (8, 6, 6, 3)) / 32
    wanted = list(load_engine(graph, "reference").run_all(images).values())
    for engine in ("fast", "reference"):
        found = list(load_engine(tmp_path / "compiled.xmodel", engine).run_all(images).values())
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_parameters_of_other_rounding_stay_on_the_dpu() -> None:
    """The rounding mode of weights is irrelevant once they are int8."""
    assert not on_cpu(_other_rounding_of_weights(_Raw()))


def test_outputs_come_in_the_order_of_return_ops() -> None:
    raw = _Raw()
    ops = [raw.fix(f"out{number}", raw.conv(f"conv{number}", raw.x), 3) for number in range(9)]
    model = load_engine(raw.returns(*reversed(ops)))
    assert list(model.run_all(np.zeros((1, 6, 6, 3)))) == [op.get_name() for op in reversed(ops)]


def _concat_with_a_constant(raw: _Raw) -> Graph:
    part = raw.parameter("part", 1, 6, 6, 2, point=5)
    return raw.returns(raw.fix("out", raw.op("both", "concat", raw.x, part, axis=3), 5))


def _sum_of_a_map_and_a_vector(raw: _Raw) -> Graph:
    """6x6x3 and 1x3, which numpy joins along the channels."""
    pool = raw.op("pool", "maxpool2d", raw.x, kernel=[6, 6], stride=[1, 1], pad_mode="FLOOR")
    flat = raw.op("flat", "flatten", raw.fix("fix", pool, 5), start_axis=1, end_axis=3)
    half = raw.op("half", "maxpool2d", raw.x, kernel=[2, 2], stride=[2, 2], pad_mode="FLOOR")
    return raw.returns(raw.fix("out", raw.op("sum", "add", half, flat), 4))


@pytest.mark.parametrize("build", [_concat_with_a_constant, _sum_of_a_map_and_a_vector])
def test_a_batch_is_its_images_one_by_one(build: Callable[[_Raw], Graph]) -> None:
    graph = build(_Raw())
    images = np.random.default_rng(1).integers(-128, 128, (3, 6, 6, 3)) / 32
    reference = load_engine(graph, "reference")
    wanted = np.concatenate([reference.run(images[i : i + 1]) for i in range(len(images))])
    for model in (graph, compile_graph(graph)):
        for engine in ("fast", "reference"):
            np.testing.assert_array_equal(load_engine(model, engine).run(images), wanted)
