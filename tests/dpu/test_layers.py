"""A graph as layers, and the lower bounds of their cycles."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tutelage.__main__ import main
from tutelage.core.fingerprint import array_of, fingerprints_of, is_own
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.inspect.layers import Layer, layers_of
from tutelage.dpu.ops.convolution import conv_work
from tutelage.dpu.predict import cycles as rules
from tutelage.dpu.predict.operations import operations_of
from tutelage.dpu.xmodel.graph import Graph


def small_network() -> Graph:
    """A quantised network: convolution, ReLU, pool, concat, dense."""
    rng = np.random.default_rng(5)
    model = QuantisedModel("small")

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-90, 91, shape, np.int8)

    x = model.input("image", (1, 8, 12, 3), 5)
    x = model.conv2d(
        "stem", x, weights(8, 3, 3, 3), 7, weights(8), 6, 4, pad=[1] * 4, nonlinear="RELU"
    )
    y = model.conv2d("side", x, weights(4, 1, 1, 8), 6, weights(4), 5, 4)
    x = model.max_pool("pool", model.concat("join", [x, y]), [2, 2], [2, 2])
    model.output(model.conv2d("head", x, weights(10, 4, 6, 12), 8, None, 0, 2))
    return model.finish()


def by_name(graph: Graph) -> dict[str, Layer]:
    """Return the layers by their names, without the graph's name."""
    return {layer.name.removeprefix("small__"): layer for layer in layers_of(graph)}


def bound_by_name(layers: dict[str, Layer]) -> dict[str, rules.Bound | None]:
    """The lower bounds of all layers of a graph, by the same names."""
    return dict(zip(layers, rules.bounds(operations_of(list(layers.values()))), strict=True))


def _work(bound: rules.Bound | None) -> int | None:
    return None if bound is None else bound.work


def _computing(bound: rules.Bound | None) -> float | None:
    return None if bound is None else bound.computing


def test_a_quantised_and_a_compiled_file_have_the_same_layers() -> None:
    quantised = small_network()
    found = [by_name(graph) for graph in (quantised, compile_graph(quantised))]
    assert list(found[0]) == ["image", "stem", "side", "join", "pool", "head"]
    assert list(found[0]) == list(found[1])
    assert bound_by_name(found[0]) == bound_by_name(found[1])
    for name, layer in found[0].items():
        other = found[1][name]
        assert (layer.kind, layer.nonlinear, layer.dims) == (
            other.kind, other.nonlinear, other.dims,
        )  # fmt: skip
        assert (layer.fix_point, layer.shift, layer.bias_shift) == (
            other.fix_point, other.shift, other.bias_shift,
        )  # fmt: skip
        assert (layer.macs, layer.parameters) == (other.macs, other.parameters)


def test_facts_of_a_layer() -> None:
    stem = by_name(small_network())["stem"]
    assert (stem.kind, stem.nonlinear, stem.input_fix_points, stem.fix_point) == (
        "conv2d", "RELU", [5], 4,
    )  # fmt: skip
    assert (stem.shift, stem.bias_shift) == (5 + 7 - 4, 5 + 7 - 6)
    assert stem.macs == 8 * 12 * 8 * 3 * 3 * 3 and stem.parameters == 8 * 3 * 3 * 3 + 8
    # 12 columns, 8 rows, 16 channels; 3 columns of 3 channels fit one group of 16.
    bound = bound_by_name(by_name(small_network()))["stem"]
    assert bound is not None and bound.computing == 12 * 8 * 16 * (2 * 3 * 16 + 1) / 4096
    assert bound.loading == stem.parameters / 32


def test_figures_of_every_kind_with_a_window() -> None:
    """Computed by hand: rows * columns * outputs * taps, each with the array's padding."""
    model = CompiledModel("kinds")

    def ones(*shape: int) -> np.ndarray:
        return np.ones(shape, np.int8)

    x = model.input("image", (1, 10, 6, 20), 4)
    y = model.conv2d(
        "conv", x, ones(40, 1, 3, 20), 6, ones(40), 3, 5, stride=[1, 2], pad=[1, 1, 0, 0]
    )
    y = model.depthwise_conv2d("depthwise", y, ones(1, 3, 3, 40), 7, ones(40), 4, 3, pad=[1] * 4)
    y = model.transposed_conv2d("up", y, ones(8, 2, 2, 40), 4, None, 0, 3, stride=[2, 2])
    model.output(model.avg_pool("pool", y, [4, 5], [4, 5], 3))
    found = {layer.name: layer for layer in layers_of(model.finish())}
    bound = bound_by_name(found)
    conv, depthwise, up, pool = (found[name] for name in ("conv", "depthwise", "up", "pool"))
    assert (conv.dims, conv.kernel, conv.stride) == ([1, 5, 6, 40], [3, 1], [1, 2])
    assert (conv.shift, conv.bias_shift) == (4 + 6 - 5, 4 + 6 - 3)
    assert conv.macs == 5 * 6 * 40 * 3 * 20 and conv.parameters == 40 * 3 * 20 + 40
    # Rows 5 -> 8, outputs 40 -> 48, inputs 20 -> 32.
    assert _work(bound["conv"]) == 8 * 6 * 48 * (2 * 3 * 32 + 1)
    assert (depthwise.shift, depthwise.bias_shift) == (5 + 7 - 3, 5 + 7 - 4)
    assert depthwise.macs == 5 * 6 * 40 * 9 and depthwise.parameters == 9 * 40 + 40
    assert _work(bound["depthwise"]) == 8 * 6 * 48 * (2 * 9 + 1)
    assert _computing(bound["depthwise"]) == 8 * 6 * 48 * 9 / 128
    assert up.dims == [1, 10, 12, 8] and (up.shift, up.bias_shift) == (3 + 4 - 3, None)
    assert up.macs == 5 * 6 * 8 * 4 * 40 and up.parameters == 8 * 4 * 40
    # Four phases of a 1x1 convolution from 40 -> 48 to 8 -> 16 channels.
    assert _work(bound["up"]) == 4 * (8 * 6 * 16 * (2 * 48 + 1))
    assert (pool.dims, pool.kernel, pool.macs, pool.parameters) == ([1, 2, 3, 8], [4, 5], 0, 0)
    assert _computing(bound["pool"]) == 4 * 3 * 16 * 20 / 64


def _carriers(path: Path) -> list[tuple[str, int, int | None]]:
    """Kind, attribute and rule of each op with `workload_on_arch`, except for other DPUs."""
    graph = Graph.deserialize(path)
    numbers = fingerprints_of(graph)
    if not numbers or not is_own(numbers[0]):
        return []
    layers = layers_of(graph)
    found = rules.bounds(operations_of(layers), array_of(numbers[0]))
    workloads = [
        (layer.kind, int(layer.op.get_attr("workload_on_arch")), _work(bound))
        for layer, bound in zip(layers, found, strict=True)
        if layer.op.has_attr("workload_on_arch")
    ]
    assert len(workloads) == sum(op.has_attr("workload_on_arch") for op in graph.get_ops())
    return workloads


@pytest.mark.filterwarnings("ignore::tutelage.core.errors.UnsortedWarning")  # one is not sorted
def test_the_rules_reproduce_amds_compilers_code(shared_dir: Path) -> None:
    """`workload_on_arch` of every op that carries it in a file for a DPUCZDX8G of any size."""
    agree: Counter[str] = Counter()
    others = []
    for path in sorted((shared_dir / "models").rglob("*.xmodel")):
        if path.stem == "damaged_by_git":
            continue
        for kind, attribute, rule in _carriers(path):
            if attribute == rule:
                agree[kind] += 1
            else:
                others.append((path.stem, kind, attribute / (rule or 1)))
    print(f"{agree.total()} ops agree: {dict(agree)}; others: {others}")
    assert agree == {
        "conv2d": 131, "maxpool2d": 18, "eltwise": 13, "depthwise-conv2d": 7,
        "transposed-conv2d": 3,
    }  # fmt: skip
    # A stem of 5x3 = 15 channels counts 14 of them; the average pool of Vitis AI 3.0 counts twice.
    counted = (2 * 5 * 14 + 1) / (2 * 5 * 28 + 1)
    assert others == [
        ("densebox_kv260", "conv2d", counted),
        ("plate_detect_kv260", "conv2d", counted),
        ("squeezenet_dpu_pynq", "avgpool2d", 2),
    ]


def test_the_stem_that_counts_half_computes_all(shared_dir: Path) -> None:
    """The first CONV of a 5x5x3 stem on a B3136: two groups of channels, as the rule has it."""
    graph = Graph.deserialize(shared_dir / "models" / "corpus" / "densebox_kv260.xmodel")
    (part,) = (p for p in graph.get_root_subgraph().get_children() if p.has_attr("mc_code"))
    words, at = np.frombuffer(part.get_attr("mc_code"), "<u4"), 0
    while words[at] >> 28 != 8:  # CONV
        at += {0: 5, 9: 4}[int(words[at] >> 28)]  # LOAD, CONVINIT
    assert (words[at + 1] >> 24) + 1 == 2


def test_the_height_is_padded_not_the_width() -> None:
    """A compiled PointPillars has 124 x 108 (height, width) -> 255,246,336 = 128 * 108 * ..."""
    assert conv_work(124, 108, 32, 3, 3, 32) == 255_246_336
    assert conv_work(108, 124, 32, 3, 3, 32) != 255_246_336


def test_json_has_layers_and_shares(demo_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--json", str(demo_model)]) == 0
    facts = json.loads(capsys.readouterr().out)
    layers = facts["layers"]
    assert "lower bounds" in facts["cycles_are"] and "not measured" in facts["cycles_are"]
    stem = next(layer for layer in layers if layer["name"] == "densenet_small__features_conv0")
    assert stem["macs"] == 14 * 14 * 16 * 9 and stem["parameters"] == 16 * 9 + 16
    assert (stem["fix_in"], stem["fix_out"]) == ([7], 5)
    assert sum(layer["array_share"] or 0 for layer in layers) == pytest.approx(1)


def test_the_table_of_a_quantised_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.xmodel"
    small_network().serialize(path)
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("#"))
    assert "array share" in head and "load cycles" in head
    rows = [line.split() for line in lines[lines.index(head) + 1 :]]
    assert [row[1] for row in rows[:5]] == [
        "conv2d+relu",
        "conv2d",
        "concat",
        "maxpool2d",
        "conv2d",
    ]
    assert rows[5][0] == "total" and rows[5][-1] == "100.0%"
    assert "not measurements" in lines[-1]
