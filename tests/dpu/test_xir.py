"""The emulated `xir`: every call of the API table, on a real graph and on one made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.runtime import xir

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
    with pytest.raises(TypeError, match="not NoneType"):
        xir.DataType(None)  # type: ignore[arg-type]


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
    assert graph.get_op("none") is graph.get_tensor("none") is None
    other = xir.Tensor("alone", [1], "XINT8")
    assert other.producer is graph.get_tensor_producer(other) is None


def test_ops(graph: xir.Graph) -> None:
    op = graph.get_op(CAT)
    assert (op.get_name(), op.get_type(), op.get_graph()) == (CAT, "concat-fix", graph)
    assert op.get_input_num() == op.get_input_num("input") == 2
    assert [o.get_name() for o in op.get_input_ops()["input"]] == [STEM, LAYER]
    assert op.get_input_ops_by_name("input")[1] is op.get_input_op(name="input", idx=1)
    assert op.get_input_tensor(name="input", idx=1).name == LAYER_TENSOR
    assert [t.name for t in op.get_input_tensors_by_name("input")] == [STEM_TENSOR, LAYER_TENSOR]
    assert op.get_input_ops_by_name("none") == op.get_input_tensors_by_name("none") == []
    with pytest.raises(RuntimeError, match="no argument 'none'"):
        op.get_input_op("none")
    assert [t.name for t in op.get_input_tensors()] == [STEM_TENSOR, LAYER_TENSOR]
    assert {o.get_name() for o in op.get_fanout_ops()} == {NEXT, f"{CAT}_1"}
    assert op.get_fanout_num() == 2
    op.infer_shape()
    assert op.get_output_tensor().dims == [1, 14, 14, 24]


def test_inputs_are_in_the_order_of_their_names(graph: xir.Graph) -> None:
    stem = graph.get_op(STEM)
    assert list(stem.get_input_ops()) == ["bias", "input", "weights"]
    sources = [op for ops in stem.get_input_ops().values() for op in ops]
    assert stem.get_input_tensors() == [op.get_output_tensor() for op in sources]


def test_inputs_of_an_op_can_be_changed() -> None:
    graph = _small_graph()
    x, conv, relu, soft = (graph.get_op(name) for name in ("x", "conv", "relu", "soft"))
    assert relu.set_input_ops("input", [x]) is relu
    assert (x.get_fanout_num(), conv.get_fanout_num()) == (2, 0)
    assert {op.get_name() for op in graph.get_tail_ops()} == {"conv", "soft"}
    relu.set_input_ops("input", [conv])
    gate = graph.create_op("gate", "sigmoid", {}, {"input": [relu]})
    soft.replace_input_ops(op_old=relu, op_new=gate)
    assert [op.get_name() for op in graph.toposort()][-3:] == ["relu", "gate", "soft"]
    with pytest.raises(RuntimeError, match=r"'w'> of shape .* cannot replace .*'gate'"):
        soft.replace_input_ops(gate, graph.get_op("w"))
    with pytest.raises(RuntimeError, match="has no argument 'weights'"):
        relu.set_input_ops("weights", [x])
    with pytest.raises(RuntimeError, match="'conv' is not in the graph"):
        relu.set_input_ops("input", [_small_graph().get_op("conv")])


WRONG_INPUTS: dict[str, tuple[Callable[[xir.Op], Any], type[Exception], str]] = {
    "another graph's": (
        lambda x: {"input": [_small_graph().get_op("x")]}, RuntimeError, "'x' is not in the graph"
    ),
    "an unknown argument": (
        lambda x: {"input": [x], "weights": [x]}, RuntimeError, "has no argument 'weights'"
    ),
    "too many": (lambda x: {"input": [x, x]}, RuntimeError, "argument 'input' takes one input, no"),
    "too few": (lambda x: {"input": []}, RuntimeError, "argument 'input' takes one input, not 0"),
    "none": (lambda x: {}, RuntimeError, "argument 'input' takes one input, not 0"),
    "no list": (lambda x: {"input": x}, TypeError, "not iterable"),
    "names": (lambda x: {"input": ["x"]}, TypeError, "an xir.Op, not str"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_wrong_inputs_of_an_op_change_nothing(case: str) -> None:
    make, error, words = WRONG_INPUTS[case]
    graph = _small_graph()
    x, relu = graph.get_op("x"), graph.get_op("relu")
    inputs, before = make(x), [op.get_name() for op in graph.toposort()]
    with pytest.raises(error, match=words):
        graph.create_op("new", "relu", {}, inputs)
    for name, ops in inputs.items():
        if name == "weights" or len(inputs) == 1:
            with pytest.raises(error, match=words.replace("'new'", "'relu'")):
                relu.set_input_ops(name, ops)
    assert [op.get_name() for op in graph.toposort()] == before
    assert x.get_fanout_ops() == [graph.get_op("conv")]
    assert relu.get_input_ops() == {"input": [graph.get_op("conv")]}


def test_other_graphs_are_left_alone() -> None:
    graph, other = _small_graph(), _small_graph()
    root = other.get_root_subgraph()
    with pytest.raises(RuntimeError, match="'root' is not in the graph"):
        graph.create_op("new", "relu", {}, {"input": [graph.get_op("x")]}, root)
    with pytest.raises(RuntimeError, match="'soft' is not in the graph"):
        graph.remove_op(other.get_op("soft"))
    assert root.get_op_num() == other.get_op_num() == graph.get_op_num() == 5


def test_a_repeated_argument_takes_one_or_more() -> None:
    graph = _small_graph()
    x = graph.get_op("x")
    with pytest.raises(RuntimeError, match="argument 'input' takes at least one input, not 0"):
        graph.create_op("sum", "add", {}, {"input": []})
    graph.create_op("sum", "add", {}, {"input": [x, x, x]})
    graph.create_op("any", "an-unknown-type", {"shape": [1], "data_type": "FLOAT32"}, {"a": [x, x]})


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
    assert root.find_child_subgraph_by_op(op=stem) is dpu
    assert root.find_child_subgraph_by_op_name(name=STEM) is dpu
    assert root.get_parent() is root.find_child_subgraph_by_op_name("none") is None
    assert user.get_tensor_producer(stem.get_output_tensor()) is None
    order = [op.get_name() for op in dpu.toposort()]
    pool, classifier = f"{GRAPH}__pool_i0", f"{GRAPH}__classifier"
    assert order.index(STEM) < order.index(pool) < order.index(classifier)


def test_making_and_merging_children() -> None:
    graph = _small_graph()
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    assert root.get_children_num() == graph.get_op_num()
    before = root.toposort_child_subgraph()
    merged = root.merge_children(set(before[1:]))
    assert merged.set_name("the rest") is merged
    assert [p.get_name() for p in root.toposort_child_subgraph()][-1] == "the rest"
    assert merged.get_op_num() == graph.get_op_num() - 1


def test_the_deepest_subgraph_is_found() -> None:
    graph = _small_graph()
    root = graph.get_root_subgraph()
    root.create_child_subgraph()
    *_, upper = root.toposort_child_subgraph()
    upper.create_child_subgraph()
    (lower,) = upper.get_children()
    op = graph.get_op("soft")
    assert root.find_child_subgraph_by_op(op) is upper.find_child_subgraph_by_op(op) is lower
    assert graph.get_leaf_subgraph(op) is lower is lower.find_child_subgraph_by_op(op)
    with pytest.raises(RuntimeError, match="that have no children"):
        root.merge_children(root.get_children())


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


@pytest.mark.parametrize("kind", [bool, np.complex64, object, "U3", "M8[s]"])
def test_constants_of_types_that_xir_lacks(kind: object) -> None:
    values = np.zeros(2, kind)  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match=f"'k' .* {values.dtype}".replace("[", r"\[")):
        xir.Graph("small").create_const_op("k", values)


def test_removing_ops() -> None:
    graph = _small_graph()
    with pytest.raises(RuntimeError, match="is still read by other ops"):
        graph.remove_op(graph.get_op("relu"))
    graph.remove_op(graph.get_op("soft"))
    graph.remove_op(graph.get_op("relu"))
    assert [op.get_name() for op in graph.get_tail_ops()] == ["conv"]
    with pytest.raises(RuntimeError, match="already in the graph"):
        graph.create_op("x", "data", {"shape": [1], "data_type": "FLOAT32"})


def test_drawing(graph: xir.Graph, tmp_path: Path) -> None:
    graph.save_as_dot(str(tmp_path / "g.dot"))
    text = (tmp_path / "g.dot").read_text()
    assert text.startswith("digraph {") and f'"{STEM}" -> "{CAT}";' in text
    graph.get_leaf_subgraph(graph.get_op(STEM)).save_as_dot(str(tmp_path / "part.dot"))
    part = (tmp_path / "part.dot").read_text()
    assert f'"{STEM}" -> "{CAT}";' in part and "fix2float" not in part and "fix2float" in text


def test_texts(graph: xir.Graph) -> None:
    """The texts have the form of AMD's binding (xir_py_module.cpp)."""
    stem = graph.get_op(STEM)
    tensor, part = stem.get_output_tensor(), graph.get_leaf_subgraph(stem)
    assert (repr(xir.DataType("XINT8")), str(xir.DataType("FLOAT32"))) == (
        "<xir.DataType 'xint8'>", "'float32'",
    )  # fmt: skip
    assert repr(tensor) == f"<xir.Tensor named '{STEM_TENSOR}'>"
    shape = "shape: [1, 14, 14, 16], type: 'xint8'"
    assert str(tensor) == f"{{name: '{STEM_TENSOR}', {shape}, attrs: {tensor.get_attrs()}}}"
    assert repr(stem) == f"<xir.Op named '{STEM}'>"
    assert str(stem) == f"{{name: '{STEM}', type: 'conv2d-fix', attrs: {stem.get_attrs()}}}"
    for made, kind in ((part, "Subgraph"), (graph, "Graph")):
        name, count = made.get_name(), made.get_op_num()
        assert repr(made) == f"<xir.{kind} named '{name}'>"
        assert str(made) == f"{{name: '{name}', op_num: {count}, attrs: {made.get_attrs()}}}"


def test_a_tensor_is_renamed_and_cloned() -> None:
    graph = _small_graph()
    tensor = graph.get_op("relu").get_output_tensor()
    copy = xir.Tensor.clone(tensor.set_attr("note", 3))
    assert copy.producer is None and copy is not tensor
    assert (copy.name, copy.dims, copy.dtype) == (tensor.name, tensor.dims, tensor.dtype)
    assert copy.get_attrs() == {"note": 3}
    tensor.name = "clipped"
    assert graph.get_tensor("clipped") is tensor and copy.name == "relu"
    with pytest.raises(RuntimeError, match="already has a tensor called 'conv'"):
        tensor.name = "conv"


def test_ops_get_their_types_defaults() -> None:
    graph = _small_graph()
    conv = graph.get_op("conv")
    assert conv.get_attr("dilation") == [1, 1] and conv.get_attr("pad") == [1, 1, 1, 1]
    attrs = {"kernel": [2, 2], "stride": [2, 2], "pad_mode": "FLOOR"}
    pool = graph.create_op(name="pool", kind="avgpool2d", attrs=attrs, input_ops={"input": [conv]})
    assert pool.get_attrs() == {
        **attrs, "pad": [0, 0, 0, 0], "global": False,
        "count_include_pad": True, "count_include_invalid": True,
    }  # fmt: skip
    pool.get_attr("pad")[0] = 9
    assert pool.set_attrs(attrs).get_attr("pad") == [0, 0, 0, 0]
    with pytest.raises(RuntimeError, match=r"'pool2' \(avgpool2d\) lacks the required attribute"):
        graph.create_op("pool2", "avgpool2d", {"kernel": [2, 2], "stride": [1, 1]},
                        {"input": [conv]})  # fmt: skip


def test_templates_are_names_only() -> None:
    for kind in (xir.OpTemplate, xir.GraphTemplate):
        with pytest.raises(TypeError):
            kind()
    assert not hasattr(xir, "Attrs")


def test_an_attribute_that_is_not_there(graph: xir.Graph) -> None:
    with pytest.raises(RuntimeError, match="no attribute 'none'"):
        graph.get_op(STEM).get_attr("none")
