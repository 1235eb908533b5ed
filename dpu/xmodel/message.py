"""Conversion of graphs to protobuf messages and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import XmodelError
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.dpu.xmodel.tensor import MAX_ELEMENTS, MAX_RANK, DataType, Tensor

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.graph import Graph


def load(proto: Any, graph: Graph) -> None:
    """Fill an empty graph from a ``serial_v2.Graph`` message.

    Raises
    ------
    XmodelError, DpuError
        The message is inconsistent.
    """
    graph._load_attrs(proto.graph_attr)
    graph._op_defs = list(proto.op_defs)
    for node in proto.op_node:
        if node.op_name in graph._ops:
            raise XmodelError(f"op {node.op_name!r} occurs twice")
        op = Op(graph, node.op_name, node.op_type)
        op._load_attrs(node.op_attr)
        op.replace_output_tensor(_load_tensor(node.output_tensor, op))
        graph._ops[node.op_name] = op
    for node in proto.op_node:
        _connect(graph, node)
    graph._root = _load_subgraph(graph, proto.subg_root, None, set())
    graph.toposort()


def _connect(graph: Graph, node: Any) -> None:
    op = graph._ops[node.op_name]
    for arg in node.args:
        sources = op._inputs.setdefault(arg.arg_name, [])
        for name in arg.arg_ops:
            source = graph._ops.get(name)
            if source is None:
                raise XmodelError(f"op {node.op_name!r} reads {name!r}, which is not in the file")
            sources.append(source)
            source._fanout.append(op)


def _load_tensor(proto: Any, op: Op) -> Tensor:
    try:
        kind = DataType.Type(proto.data_type)
    except ValueError:
        raise XmodelError(f"op {op.get_name()!r}: data type {proto.data_type} is unknown") from None
    if len(proto.tensor_dim) > MAX_RANK:
        raise XmodelError(f"op {op.get_name()!r}: a tensor has {len(proto.tensor_dim)} dimensions")
    dims = list(proto.tensor_dim)
    if 0 in dims or math.prod(dims) > MAX_ELEMENTS:
        raise XmodelError(f"op {op.get_name()!r}: tensor shape {dims} is empty or too large")
    tensor = Tensor(proto.tensor_name, dims, DataType(kind, proto.tensor_bit_width))
    tensor._load_attrs(proto.tensor_attr)
    return tensor


def _load_subgraph(graph: Graph, proto: Any, parent: Subgraph | None, seen: set[str]) -> Subgraph:
    subgraph = Subgraph(graph, proto.subgraph_name, parent)
    subgraph._load_attrs(proto.subg_attr)
    for name in proto.op_name:
        if name not in graph._ops:
            raise XmodelError(f"subgraph {proto.subgraph_name!r} lists the unknown op {name!r}")
        if name in seen:
            raise XmodelError(f"op {name!r} is in two subgraphs")
        seen.add(name)
        subgraph._own[name] = graph._ops[name]
    for child in proto.subg_child:
        subgraph._children.append(_load_subgraph(graph, child, subgraph, seen))
    return subgraph


def store(graph: Graph, proto: Any) -> None:
    """Write a graph into an empty ``serial_v2.Graph`` message, its ops in topological order."""
    for op in graph.toposort():
        _store_op(op, proto.op_node.add())
    _store_subgraph(graph.get_root_subgraph(), proto.subg_root)
    graph._store_attrs(proto.graph_attr)
    proto.op_defs.extend(graph._op_defs)


def _store_op(op: Op, node: Any) -> None:
    node.op_name, node.op_type = op.get_name(), op.get_type()
    op._store_attrs(node.op_attr)
    for name, sources in op._inputs.items():  # in the order of the file or of the op's definition
        node.args.add(arg_name=name, arg_ops=[source.get_name() for source in sources])
    tensor = op.get_output_tensor()
    out = node.output_tensor
    out.tensor_name = tensor.name
    out.tensor_dim.extend(tensor.dims)
    out.data_type = tensor._data_type.type.value
    out.tensor_bit_width = tensor._data_type.bit_width
    tensor._store_attrs(out.tensor_attr)


def _store_subgraph(subgraph: Subgraph, proto: Any) -> None:
    proto.subgraph_name = subgraph.get_name()
    proto.op_name.extend(subgraph._own)
    subgraph._store_attrs(proto.subg_attr)
    for child in subgraph._children:
        _store_subgraph(child, proto.subg_child.add())
