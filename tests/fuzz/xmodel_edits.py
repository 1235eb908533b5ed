"""Edits of an .xmodel's structure, which changes of bytes hardly reach.

A case is a base model and a list of edits; an edit has the kind of change, its place (shares of the
lists' lengths) and the new value. `build` returns the file's bytes. Half of the cases have their
shapes inferred again after the edits, so that consistent files reach the engines.
"""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import models
from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.schema import GraphProto

_NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 5, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 2**15, 2**16, 60_000,
     10**6, 2**24, 2**27, 2**29, 2**30, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**40, 2**62,
     2**63 - 1, -(2**63), 2**64 - 1]
)  # fmt: skip
_INTEGERS = _NUMBERS | st.integers(-10, 20)
_FLOATS = st.sampled_from([0.0, -1.0, 0.5, 2.0, 1e9, 1e300, float("inf"), float("nan")])
_WORDS = st.sampled_from(
    ["", "NONE", "RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH", "MAX", "AVG", "ADD", "MUL",
     "SAME", "VALID", "CEIL", "FLOOR", "REFLECT", "EDGE", "SYMMETRIC", "STD_ROUND", "PY3_ROUND",
     "DPU", "CPU", "USER", "INT8", "XINT8", "FLOAT32", "FLOAT64", "y", "x0", "REG_0", "\x1b[31m\n",
     "n" * 5000, "\udcff".encode("utf-8", "replace").decode()]
)  # fmt: skip
_LISTS = st.lists(_INTEGERS, max_size=8)
_VALUES: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("bool_value"), st.booleans()),
    st.tuples(st.just("int32_value"), _INTEGERS),
    st.tuples(st.just("int64_value"), _INTEGERS),
    st.tuples(st.just("uint64_value"), _INTEGERS),
    st.tuples(st.just("double_value"), _FLOATS),
    st.tuples(st.just("string_value"), _WORDS),
    st.tuples(st.just("bytes_value"), st.binary(max_size=40)),
    st.tuples(st.just("int32_vec_value"), _LISTS),
    st.tuples(st.just("int64_vec_value"), _LISTS),
    st.tuples(st.just("double_vec_value"), st.lists(_FLOATS, max_size=4)),
    st.tuples(st.just("string_vec_value"), st.lists(_WORDS, max_size=3)),
    st.tuples(st.just("bool_vec_value"), st.lists(st.booleans(), max_size=3)),
    st.tuples(st.just(""), st.none()),
)
_ATTRIBUTES = st.sampled_from(
    ["kernel", "stride", "pad", "dilation", "pad_mode", "global", "axis", "shape", "fix_point",
     "order", "begin", "end", "strides", "paddings", "mode", "scale", "constant_values",
     "nonlinear", "hsigmoid_in", "type", "return_ops", "reg_id", "ddr_addr",
     "reg_id_to_parameter_value", "device", "transpose_a", "transpose_b", "keep_dims", "if_signed",
     "bit_width", "round_mode", "data_type", "data", "workload", "alpha", "start_axis", "end_axis",
     "reg_id_to_context_type", "dpu_name", "dpu_fingerprint", "mc_code", "reg_id_to_size", "group"]
)  # fmt: skip
_PLACE = st.floats(0, 1, exclude_max=True)

_EDIT = st.one_of(
    st.tuples(st.just("own attribute"), _PLACE, _PLACE, _VALUES),
    st.tuples(st.just("item"), _PLACE, _PLACE, _INTEGERS),
    st.tuples(st.just("attribute"), _PLACE, _ATTRIBUTES, _VALUES),
    st.tuples(st.just("tensor attribute"), _PLACE, _ATTRIBUTES, _VALUES),
    st.tuples(st.just("subgraph attribute"), _PLACE, _ATTRIBUTES, _VALUES),
    st.tuples(st.just("graph attribute"), _PLACE, _ATTRIBUTES, _VALUES),
    st.tuples(st.just("drop attribute"), _PLACE, _PLACE, st.none()),
    st.tuples(st.just("dim"), _PLACE, _PLACE, _INTEGERS),
    st.tuples(st.just("dims"), _PLACE, _LISTS, st.none()),
    st.tuples(st.just("type"), _PLACE, st.sampled_from([*models.KINDS, "data", "x"]), _WORDS),
    st.tuples(st.just("element"), _PLACE, _INTEGERS, _INTEGERS),
    st.tuples(st.just("read"), _PLACE, _PLACE, st.sampled_from(["input", "weights", "bias", "z"])),
    st.tuples(st.just("dangle"), _PLACE, _PLACE, _WORDS),
    st.tuples(st.just("unread"), _PLACE, _PLACE, st.none()),
    st.tuples(st.just("drop op"), _PLACE, _PLACE, st.none()),
    st.tuples(st.just("rename"), _PLACE, _PLACE, _WORDS),
    st.tuples(st.just("double op"), _PLACE, _PLACE, st.none()),
    st.tuples(st.just("nest"), _PLACE, st.integers(1, 95), st.none()),
    st.tuples(st.just("subgraph"), _PLACE, _PLACE, _WORDS),
    st.tuples(st.just("no root"), _PLACE, _PLACE, st.none()),
    st.tuples(st.just("chain"), _PLACE, st.sampled_from([3, 400, 3000]),
              st.sampled_from(["identity", "relu", "reshape-fix", "concat", "fix"])),
)  # fmt: skip

CASES = st.tuples(
    st.sampled_from(models.bases()), st.lists(_EDIT, min_size=1, max_size=4), st.booleans()
)


def build(case: Any) -> bytes:
    """The bytes of a case's model."""
    name, edits, inferred = case
    graph = GraphProto()
    graph.ParseFromString(models.base(name))
    for edit in edits:
        if graph.op_node:
            # Fields that cannot have the value (a number too large, a missing op) are unchanged.
            with contextlib.suppress(ValueError, TypeError, IndexError):
                _apply(graph, edit)
    return _inferred(graph) if inferred else bytes(graph.SerializeToString())


def _inferred(proto: Any) -> bytes:
    with contextlib.suppress(
        DpuError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError
    ):
        graph = Graph.from_proto(proto)
        graph.infer_shape()
        proto = graph.to_proto()
    return bytes(proto.SerializeToString())


def _at(items: Any, place: float) -> Any:
    return items[int(place * len(items))]


def _set(attrs: Any, key: str, value: tuple[str, Any]) -> None:
    from tutelage.dpu.xmodel.attributes import encode

    proto = attrs[key]
    proto.Clear()
    encode(*value, proto)


def _apply(graph: Any, edit: Any) -> None:
    kind, place, what, value = edit
    op = _at(graph.op_node, place)
    if kind in ("own attribute", "item", "drop attribute"):
        _own_attribute(op, kind, what, value)
    elif kind.endswith("attribute"):
        holders = {"attribute": op.op_attr, "tensor attribute": op.output_tensor.tensor_attr,
                   "graph attribute": graph.graph_attr}  # fmt: skip
        _set(holders[kind] if kind in holders else _subgraph(graph, place).subg_attr, what, value)
    elif kind in ("dim", "dims", "element"):
        _tensor(op.output_tensor, kind, what, value)
    elif kind in ("read", "dangle", "unread"):
        _reading(graph, op, kind, what, value)
    elif kind == "type":
        op.op_type = what
    elif kind == "rename":
        op.op_name = value
    elif kind == "drop op":
        graph.op_node.remove(op)
    elif kind == "double op":
        graph.op_node.add().CopyFrom(op)
        graph.op_node[-1].op_name += "_twin"
    elif kind == "no root":
        graph.ClearField("subg_root")
    elif kind == "chain":
        _chain(graph, op, what, value)
    else:
        _subgraphs(graph, op, kind, what, value)


def _own_attribute(op: Any, kind: str, what: float, value: Any) -> None:
    """Change an existing attribute or a number of its list, or drop it."""
    every = [(op.op_attr, k) for k in sorted(op.op_attr)]
    every += [(op.output_tensor.tensor_attr, k) for k in sorted(op.output_tensor.tensor_attr)]
    attrs, key = _at(every, what)
    if kind == "drop attribute":
        del attrs[key]
    elif kind == "own attribute":
        _set(attrs, key, value)
    else:
        field = attrs[key].WhichOneof("value") or "int32_value"
        held = getattr(attrs[key], field)
        if field.endswith("_vec_value") and len(held.value):
            held.value[int(what * 997) % len(held.value)] = value
        elif not hasattr(held, "value"):
            setattr(attrs[key], field, type(held)(value))


def _tensor(tensor: Any, kind: str, what: Any, value: Any) -> None:
    if kind == "dim":
        tensor.tensor_dim[int(what * len(tensor.tensor_dim))] = value
    elif kind == "dims":
        kept = [number for number in what if 0 <= number < 2**32]
        del tensor.tensor_dim[:]
        tensor.tensor_dim.extend(kept)
    else:
        tensor.data_type, tensor.tensor_bit_width = what, value


def _reading(graph: Any, op: Any, kind: str, what: float, value: Any) -> None:
    if kind == "read":
        op.args.add(arg_name=value, arg_ops=[_at(graph.op_node, what).op_name])
    elif kind == "dangle":
        _at(op.args, what).arg_ops.append(value)
    else:
        arg = _at(op.args, what)
        del arg.arg_ops[int(what * len(arg.arg_ops))]


def _chain(graph: Any, op: Any, length: int, kind: str) -> None:
    """Add a chain of many ops of one type after `op`."""
    for number in range(length):
        new = graph.op_node.add(op_name=f"chain{number}", op_type=kind)
        new.output_tensor.CopyFrom(op.output_tensor)
        new.output_tensor.tensor_name = new.op_name
        if kind == "concat":
            _set(new.op_attr, "axis", ("int32_value", 0))
        new.output_tensor.tensor_attr.clear()
        new.args.add(arg_name="input", arg_ops=[f"chain{number - 1}" if number else op.op_name])


def _subgraph(graph: Any, place: float) -> Any:
    every = [graph.subg_root, *graph.subg_root.subg_child]
    return _at(every, place)


def _subgraphs(graph: Any, op: Any, kind: str, what: Any, value: Any) -> None:
    if kind == "nest":
        inner = _subgraph(graph, 0.99)
        for number in range(what):
            inner = inner.subg_child.add(subgraph_name=f"s{number}")
    else:
        child = graph.subg_root.subg_child.add(subgraph_name=value)
        child.op_name.append(op.op_name if what < 0.8 else value)
