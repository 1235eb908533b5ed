"""The emulated `xir`: every call of the API table, on a real graph and on one made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dpu import xir
from dpu.engine import load_engine

GRAPH = "densenet_small"
STEM = f"{GRAPH}__features_conv0"
LAYER = f"{GRAPH}__features_denseblock1_denselayer1_conv2"
NEXT = f"{GRAPH}__features_denseblock1_denselayer2_conv1"
CAT = f"{GRAPH}__cat"
STEM_TENSOR, LAYER_TENSOR = f"{STEM}_relu_fix", f"{LAYER}_relu_inserted_fix_0"


@pytest.fixture(scope="module")
def graph(demo_model: Path) -> xir.Graph:
    return xir.Graph.deserialize(str(demo_model))


def test_data_types() -> None:
    kind = xir.DataType("XINT8")
    assert kind.type == xir.DataType.Type.XINT and kind.bit_width == 8
    assert [t.name for t in xir.DataType.Type] == [
        "INT", "UINT", "XINT", "XUINT", "FLOAT", "UNKNOWN",
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="unknown data type"):
        xir.DataType("COMPLEX64")


def test_graph(graph: xir.Graph) -> None:
    assert graph.get_name() == GRAPH
    assert graph.get_op_num() == len(graph.get_ops()) == len(graph.toposort())
    stem = graph.get_op(STEM)
    assert graph.get_tensor(STEM_TENSOR) is stem.get_output_tensor()
    assert graph.get_tensor_producer(stem.get_output_tensor()) is stem
    assert graph.get_leaf_subgraph(stem).get_attr("device") == "DPU"
    assert {op.get_type() for op in graph.get_head_ops()} == {"data-fix", "const-fix"}
    assert [op.get_type() for op in graph.get_tail_ops()] == ["fix2float"]
    assert stem.get_output_tensor() in graph.get_tensors()
    with pytest.raises(RuntimeError, match="no op called"):
        graph.get_op("none")


def test_ops(graph: xir.Graph) -> None:
    op = graph.get_op(CAT)
    assert (op.get_name(), op.get_type(), op.get_graph()) == (CAT, "concat-fix", graph)
    assert op.get_input_num() == op.get_input_num("input") == 2
    assert [o.get_name() for o in op.get_input_ops()["input"]] == [STEM, LAYER]
    assert op.get_input_ops_by_name("input")[1] is op.get_input_op("input", 1)
    assert op.get_input_tensor("input", 1).name == LAYER_TENSOR
    assert [t.name for t in op.get_input_tensors()] == [STEM_TENSOR, LAYER_TENSOR]
    assert {o.get_name() for o in op.get_fanout_ops()} == {NEXT, f"{CAT}_1"}
    assert op.get_fanout_num() == 2
    op.infer_shape()
    assert op.get_output_tensor().dims == [1, 14, 14, 24]


def test_tensors(graph: xir.Graph) -> None:
    tensor = graph.get_op(STEM).get_output_tensor()
    assert (tensor.name, tensor.ndim, tensor.dims) == (STEM_TENSOR, 4, [1, 14, 14, 16])
    assert (tensor.dtype, tensor.producer.get_name()) == ("xint8", STEM)
    assert tensor.get_element_num() == tensor.get_data_size() == 14 * 14 * 16
    assert tensor.get_attr("bit_width") == 8 and tensor.get_attr("if_signed") is True
    assert tensor.get_attr("round_mode") == "DPU_ROUND" and tensor.has_attr("fix_point")


def test_subgraphs(graph: xir.Graph) -> None:
    root = graph.get_root_subgraph()
    assert root.is_root and not root.is_leaf and root.depth == 0
    user, dpu, cpu = root.toposort_child_subgraph()
    assert [p.get_attr("device") for p in (user, dpu, cpu)] == ["USER", "DPU", "CPU"]
    assert root.get_children() == {user, dpu, cpu} and root.get_children_num() == 3
    assert dpu.get_parent() is root and dpu.root is root and dpu.depth == 1 and dpu.is_leaf
    assert root.is_child(dpu) and not dpu.is_child(root)
    assert root.get_op_num() == graph.get_op_num() > dpu.get_op_num() == len(dpu.get_ops())
    stem = graph.get_op(STEM)
    assert dpu.has_op(stem) and dpu.has_op(STEM) and not user.has_op(STEM)
    assert {t.name for t in dpu.get_input_tensors()} == {f"{GRAPH}__input_fix"}
    assert {t.name for t in dpu.get_output_tensors()} == {f"{GRAPH}__logits"}
    assert dpu.get_tensor_producer(stem.get_output_tensor()) is stem
    assert root.find_child_subgraph_by_op(stem) is dpu
    assert root.find_child_subgraph_by_op_name(STEM) is dpu
    order = [op.get_name() for op in dpu.toposort()]
    assert order.index(STEM) < order.index(f"{GRAPH}__pool") < order.index(f"{GRAPH}__classifier")


def test_making_and_merging_children() -> None:
    graph = _small_graph()
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    assert root.get_children_num() == graph.get_op_num()
    before = root.toposort_child_subgraph()
    merged = root.merge_children(set(before[1:]))
    merged.set_name("the rest")
    assert [p.get_name() for p in root.toposort_child_subgraph()][-1] == "the rest"
    assert merged.get_op_num() == graph.get_op_num() - 1


def _small_graph() -> xir.Graph:
    graph = xir.Graph("small")
    x = graph.create_op("x", "data", {"shape": [1, 4, 4, 2], "data_type": "FLOAT32"})
    weights = np.arange(2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 3, 3, 2)
    w = graph.create_const_op("w", weights)
    attrs = {"kernel": [3, 3], "stride": [1, 1], "pad": [1, 1, 1, 1], "pad_mode": "FLOOR"}
    conv = graph.create_op("conv", "conv2d", attrs, {"input": [x], "weights": [w]})
    relu = graph.create_op("relu", "relu", {}, {"input": [conv]})
    graph.create_op("soft", "softmax", {"axis": -1}, {"input": [relu]})
    return graph


def test_a_graph_made_here_is_written_read_and_run(tmp_path: Path) -> None:
    graph = _small_graph()
    graph.set_attr("origin", "here")
    graph.get_op("conv").set_attrs({**graph.get_op("conv").get_attrs(), "note": [1.5, 2.5]})
    graph.serialize(str(tmp_path / "small.xmodel"))
    copy = xir.Graph.deserialize(str(tmp_path / "small.xmodel"))
    assert copy.get_attr("origin") == "here" and copy.get_attrs() == {"origin": "here"}
    assert copy.get_op("conv").get_attr("note") == [1.5, 2.5]
    assert copy.get_op("conv").get_output_tensor().dims == [1, 4, 4, 2]
    x = np.ones((3, 4, 4, 2), np.float32)
    found = [load_engine(g, "reference").run(x) for g in (graph, copy)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0].sum(-1), 1, rtol=1e-6)


def test_removing_ops() -> None:
    graph = _small_graph()
    with pytest.raises(RuntimeError, match="still has readers"):
        graph.remove_op(graph.get_op("relu"))
    graph.remove_op(graph.get_op("soft"))
    graph.remove_op(graph.get_op("relu"))
    assert [op.get_name() for op in graph.get_tail_ops()] == ["conv"]
    with pytest.raises(RuntimeError, match="in the graph already"):
        graph.create_op("x", "data", {"shape": [1], "data_type": "FLOAT32"})


def test_drawing(graph: xir.Graph, tmp_path: Path) -> None:
    graph.save_as_dot(str(tmp_path / "g.dot"))
    text = (tmp_path / "g.dot").read_text()
    assert text.startswith("digraph {") and f'"{STEM}" -> "{CAT}";' in text


def test_an_attribute_that_is_not_there(graph: xir.Graph) -> None:
    with pytest.raises(RuntimeError, match="no attribute 'none'"):
        graph.get_op(STEM).get_attr("none")
