"""Emulation of XIR's Python module: graphs, subgraphs, ops and tensors of an .xmodel.

Names and behaviour follow the pybind11 module `xir` of Vitis AI 2.5 to 3.5, so
that a script written for the board runs unchanged; `dpu/runtime/shim.py` makes it
importable under that name. It is the one representation of a graph in dpu/:
engines, writer and tools work on these classes.

Where the binding gives None for what is not there, so do these, under the type
`X | Any`: code that knows it to be there need not ask.
"""

from __future__ import annotations

import heapq
import math
import os
import subprocess
import warnings
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Any

from tutelage.core.errors import (
    UNSORTED,
    DpuError,
    UnsortedWarning,
    UnsupportedError,
    XmodelError,
    not_emulated,
)
from tutelage.dpu.xmodel import file as xmodel
from tutelage.dpu.xmodel import op_definitions as op_defs
from tutelage.dpu.xmodel.attributes import AttrHolder, AttrValue, Self
from tutelage.dpu.xmodel.schema import GraphProto

MAX_ELEMENTS = 1 << 29
"""Most elements of one tensor: seven times PointPillars' largest (76.8 million)."""

MAX_RANK = 8
"""Most dimensions of a tensor in a file; those of AMD's models at hand have four at most."""


def __getattr__(name: str) -> Any:
    raise not_emulated("xir", name)


class DataType:
    """Element type of a tensor: kind and width in bits, e.g. ``DataType("XINT8")``."""

    class Type(IntEnum):
        """The kinds, with their numbers in the file."""

        INT = 0
        UINT = 1
        XINT = 2
        XUINT = 3
        FLOAT = 4
        UNKNOWN = 5

    INT, UINT, XINT = Type.INT, Type.UINT, Type.XINT
    XUINT, FLOAT, UNKNOWN = Type.XUINT, Type.FLOAT, Type.UNKNOWN

    def __init__(self, name: str | DataType.Type = "UNKNOWN", bit_width: int = 0) -> None:
        if isinstance(name, DataType.Type):
            self.type, self.bit_width = name, bit_width
            return
        if not isinstance(name, str):
            raise TypeError(f"a data type is made from its name, not {type(name).__name__}")
        kind = name.upper().rstrip("0123456789")
        if kind not in DataType.Type.__members__:
            raise DpuError(f"unknown data type {name!r}")
        self.type = DataType.Type[kind]
        digits = name[len(kind) :]
        self.bit_width = int(digits) if digits else bit_width

    @property
    def _text(self) -> str:
        return f"{self.type.name}{self.bit_width}".lower()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataType) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return f"'{self._text}'"

    def __repr__(self) -> str:
        return f"<xir.DataType '{self._text}'>"


class Tensor(AttrHolder):
    """The one output of an op: name, dims (NHWC), element type, attributes."""

    def __init__(self, name: str, dims: Iterable[int], dtype: DataType | str) -> None:
        super().__init__()
        self._name = name
        self._dims = [int(dim) for dim in dims]
        self._data_type = DataType(dtype) if isinstance(dtype, str) else dtype
        self._producer: Op | None = None

    @staticmethod
    def clone(tensor: Tensor, /) -> Tensor:
        """A copy that no op produces."""
        copy = Tensor(tensor.name, tensor.dims, tensor._data_type)
        copy._attrs = dict(tensor._attrs)
        return copy

    @property
    def name(self) -> str:
        """Name of the tensor (often not the name of its op); unique in the graph when set."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        graph = self._producer.get_graph() if self._producer else None
        if name != self._name and graph and graph.get_tensor(name) is not None:
            raise DpuError(f"the graph has a tensor called {name!r} already")
        self._name = name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._dims)

    @property
    def dims(self) -> list[int]:
        """Shape, batch first, channels last."""
        return list(self._dims)

    @property
    def dtype(self) -> str:
        """Element type in lower case, e.g. "xint8" or "float32"."""
        return self._data_type._text

    @property
    def is_int8(self) -> bool:
        """Whether the elements are int8; the emulation's own, the board's XIR lacks it."""
        return self.dtype in ("xint8", "int8")

    @property
    def producer(self) -> Op | Any:
        """The op that computes this tensor, or None."""
        return self._producer

    def get_element_num(self) -> int:
        """Number of elements."""
        return math.prod(self._dims)

    def get_data_size(self) -> int:
        """Size in bytes."""
        return self.get_element_num() * self._data_type.bit_width // 8

    def __repr__(self) -> str:
        return f"<xir.Tensor named '{self._name}'>"

    def __str__(self) -> str:
        what = f"shape: {self._dims}, type: '{self.dtype}', attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"


class Op(AttrHolder):
    """One operation of a graph."""

    def __init__(self, graph: Graph, name: str, type_: str) -> None:
        super().__init__()
        self._graph = graph
        self._name = name
        self._type = type_
        self._inputs: dict[str, list[Op]] = {}
        self._fanout: list[Op] = []
        self._output: Tensor | None = None

    def get_name(self) -> str:
        """Name, unique in the graph."""
        return self._name

    def get_type(self) -> str:
        """Op type, e.g. "conv2d-fix"."""
        return self._type

    def get_graph(self) -> Graph:
        """The graph that the op belongs to."""
        return self._graph

    def get_input_num(self, name: str | None = None) -> int:
        """Number of inputs, of one argument or of all."""
        if name is not None:
            return len(self._inputs.get(name, []))
        return sum(len(ops) for ops in self._inputs.values())

    def get_input_ops(self) -> dict[str, list[Op]]:
        """The producers of the inputs, by argument name, in the order of these names."""
        return {name: list(self._inputs[name]) for name in sorted(self._inputs)}

    def get_input_ops_by_name(self, name: str) -> list[Op]:
        """The producers of one argument, [] where the op has none of that name."""
        return list(self._inputs.get(name, []))

    def get_input_op(self, name: str, idx: int = 0) -> Op:
        """The producer of one input.

        Raises
        ------
        DpuError
            There is no such argument, or no such input of it.
        """
        ops = self._inputs.get(name)
        if ops is None:
            raise DpuError(f"op {self._name!r} ({self._type}) has no argument {name!r}")
        if not 0 <= idx < len(ops):
            raise DpuError(f"op {self._name!r}: argument {name!r} has no input {idx}")
        return ops[idx]

    def set_input_ops(self, name: str, ops: list[Op]) -> Op:
        """Let one argument read other ops; returns this op.

        Raises
        ------
        DpuError
            One of `ops` is not in the graph, or the op type has no such argument or takes
            another number of inputs for it.
        """
        self._graph._check_inputs(self, {**self._inputs, name: ops})
        for op in self._inputs.get(name, []):
            op._fanout.remove(self)
        self._inputs[name] = list(ops)
        for op in ops:
            op._fanout.append(self)
        self._graph._order = None
        return self

    def replace_input_ops(self, op_old: Op, op_new: Op) -> None:
        """Read `op_new` wherever `op_old` is read.

        Raises
        ------
        DpuError
            `op_new` is not in the graph, or its tensor has another shape.
        """
        self._graph._check_own(op_new)
        old, new = (op.get_output_tensor().dims for op in (op_old, op_new))
        if old != new:
            raise DpuError(f"{op_new!r} gives {new}, {op_old!r} {old}: it cannot replace it")
        self._graph.replace_input(self, op_old, op_new)

    def get_input_tensors(self) -> list[Tensor]:
        """All input tensors, in the order of the arguments' names."""
        return [op.get_output_tensor() for ops in self.get_input_ops().values() for op in ops]

    def get_input_tensors_by_name(self, name: str) -> list[Tensor]:
        """The input tensors of one argument."""
        return [op.get_output_tensor() for op in self.get_input_ops_by_name(name)]

    def get_input_tensor(self, name: str, idx: int = 0) -> Tensor:
        """One input tensor."""
        return self.get_input_op(name, idx).get_output_tensor()

    def get_output_tensor(self) -> Tensor:
        """The output tensor."""
        if self._output is None:
            raise DpuError(f"op {self._name!r} has no output tensor")
        return self._output

    def replace_output_tensor(self, tensor: Tensor) -> None:
        """Give the op another output tensor."""
        self._output = tensor
        tensor._producer = self

    def get_fanout_ops(self) -> list[Op]:
        """The ops that read the output, each once."""
        return list(dict.fromkeys(self._fanout))

    def get_fanout_num(self) -> int:
        """How often the output is read."""
        return len(self._fanout)

    def set_attrs(self: Self, attrs: dict[str, AttrValue]) -> Self:
        """Replace all attributes; the op type's optional ones get their defaults.

        Raises
        ------
        DpuError
            A required one is missing.
        """
        self._attrs = op_defs.complete(self._type, attrs, f"op {self._name!r}")
        return self

    def infer_shape(self) -> None:
        """Set the output tensor's shape from the inputs' and the attributes."""
        from tutelage.dpu.ops.shapes import infer_tensor

        self.replace_output_tensor(infer_tensor(self))

    def __repr__(self) -> str:
        return f"<xir.Op named '{self._name}'>"

    def __str__(self) -> str:
        return f"{{name: '{self._name}', type: '{self._type}', attrs: {self.get_attrs()}}}"


class Subgraph(AttrHolder):
    """A set of ops; the root's children are the stretches that run on one device each."""

    def __init__(self, graph: Graph, name: str, parent: Subgraph | None) -> None:
        super().__init__()
        self._graph = graph
        self._name = name
        self._parent = parent
        self._children: list[Subgraph] = []
        self._own: dict[str, Op] = {}
        self._executables: dict[
            Any, Any
        ] = {}  # what `tutelage.dpu.runtime.device` has built for it

    def get_name(self) -> str:
        """Name of the subgraph."""
        return self._name

    def set_name(self, name: str) -> Subgraph:
        """Rename the subgraph; returns it."""
        self._name = name
        return self

    @property
    def is_root(self) -> bool:
        """Whether this is the graph's root."""
        return self._parent is None

    @property
    def is_leaf(self) -> bool:
        """Whether it has no children."""
        return not self._children

    @property
    def root(self) -> Subgraph:
        """The root above (or the subgraph itself)."""
        return self if self._parent is None else self._parent.root

    @property
    def depth(self) -> int:
        """Levels below the root, whose depth is 0."""
        return 0 if self._parent is None else self._parent.depth + 1

    def get_graph(self) -> Graph:
        """The graph that the subgraph belongs to."""
        return self._graph

    def get_parent(self) -> Subgraph | Any:
        """The subgraph above; None above the root."""
        return self._parent

    def get_children(self) -> set[Subgraph]:
        """The subgraphs below, in no order (as in XIR)."""
        return set(self._children)

    def get_children_num(self) -> int:
        """Number of subgraphs below."""
        return len(self._children)

    def is_child(self, op: Subgraph) -> bool:
        """Whether the subgraph `op` (so the binding calls it) is a child of this one."""
        return op in self._children

    def _op_names(self) -> set[str]:
        names = set(self._own)
        for child in self._children:
            names |= child._op_names()
        return names

    def get_ops(self) -> set[Op]:
        """All ops in it, in no order (as in XIR)."""
        return {self._graph.get_op(name) for name in self._op_names()}

    def get_op_num(self) -> int:
        """Number of ops in it."""
        return len(self._op_names())

    def has_op(self, op: Op | str) -> bool:
        """Whether it holds the op (or the op of that name)."""
        name = op if isinstance(op, str) else op.get_name()
        return name in self._own or any(child.has_op(name) for child in self._children)

    def toposort(self) -> list[Op]:
        """Its ops, producers before consumers."""
        return self._graph._in_order(self._op_names())

    def ordered_input_tensors(self) -> list[Tensor]:
        """The tensors that come from outside, in topological order of their first reader."""
        names = self._op_names()
        found: dict[str, Tensor] = {}
        for op in self.toposort():
            for ops in op.get_input_ops().values():
                for source in ops:
                    if source.get_name() not in names:
                        found.setdefault(source.get_name(), source.get_output_tensor())
        return list(found.values())

    def ordered_output_tensors(self) -> list[Tensor]:
        """The tensors that others read or nobody reads, in topological order."""
        names = self._op_names()
        outputs = []
        for op in self.toposort():
            readers = op.get_fanout_ops()
            if not readers or any(reader.get_name() not in names for reader in readers):
                outputs.append(op.get_output_tensor())
        return outputs

    def get_input_tensors(self) -> set[Tensor]:
        """The tensors that come from outside, in no order (as in XIR)."""
        return set(self.ordered_input_tensors())

    def get_output_tensors(self) -> set[Tensor]:
        """The tensors that leave the subgraph, in no order (as in XIR)."""
        return set(self.ordered_output_tensors())

    def get_tensor_producer(self, tensor: Tensor) -> Op | Any:
        """The op in this subgraph that computes `tensor`, or None."""
        producer = tensor.producer
        return producer if producer is not None and self.has_op(producer) else None

    def toposort_child_subgraph(self) -> list[Subgraph]:
        """The children, producers before consumers."""
        children = self._children
        home = {name: i for i, child in enumerate(children) for name in child._op_names()}
        readers: list[set[int]] = [set() for _ in children]
        for name, place in home.items():
            for ops in self._graph.get_op(name).get_input_ops().values():
                for source in ops:
                    other = home.get(source.get_name(), place)
                    if other != place:
                        readers[other].add(place)
        order = _first_ready(readers)
        if len(order) < len(children):
            raise DpuError(f"the children of subgraph {self._name!r} depend on each other")
        return [children[place] for place in order]

    def create_child_subgraph(self) -> None:
        """Make one child for each op that a childless subgraph holds (as in XIR)."""
        if self._children:
            raise DpuError(f"subgraph {self._name!r} has children already")
        for name, op in self._own.items():
            self.add_child(f"subgraph_{name}", [op])
        self._own = {}

    def add_child(self, name: str, ops: Iterable[Op]) -> Subgraph:
        """Add a child that holds `ops`; the emulation's own, the board's XIR lacks it."""
        child = Subgraph(self._graph, name, self)
        child._own = {op.get_name(): op for op in ops}
        self._children.append(child)
        return child

    def merge_children(self, child_subgraph_list: Iterable[Subgraph]) -> Subgraph:
        """Replace some children by one that holds their ops; returns the new child.

        Raises
        ------
        DpuError
            One of them is not a child of this subgraph, or has children.
        """
        merged = list(child_subgraph_list)
        if not merged or any(child not in self._children or child._children for child in merged):
            raise DpuError("merge_children wants children of this subgraph, without children")
        ops = [op for child in self._children if child in merged for op in child.toposort()]
        self._children = [child for child in self._children if child not in merged]
        return self.add_child(merged[0].get_name(), ops)

    def find_child_subgraph_by_op(self, op: Op) -> Subgraph | Any:
        """The deepest subgraph in this one that holds `op` (it may be this one), or None."""
        return self.find_child_subgraph_by_op_name(op.get_name())

    def find_child_subgraph_by_op_name(self, name: str) -> Subgraph | Any:
        """The deepest subgraph in this one with the op called `name`, or None."""
        for child in self._children:
            if child.has_op(name):
                return child.find_child_subgraph_by_op_name(name)
        return self if name in self._own else None

    def save_as_dot(self, fname: str | os.PathLike[str]) -> None:
        """Write the subgraph in Graphviz's language."""
        Path(fname).write_text(_dot(self.toposort()), encoding="utf-8")

    def __repr__(self) -> str:
        return f"<xir.Subgraph named '{self._name}'>"

    def __str__(self) -> str:
        what = f"op_num: {self.get_op_num()}, attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"


class Graph(AttrHolder):
    """A whole network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._ops: dict[str, Op] = {}
        self._order: tuple[list[Op], dict[str, int]] | None = None
        self._root = Subgraph(self, "root", None)
        self._op_defs: list[Any] = []

    @classmethod
    def deserialize(cls, fname: str | os.PathLike[str]) -> Graph:
        """Read an .xmodel; issues an `UnsortedWarning` where `is_sorted` is false.

        Raises
        ------
        XmodelError
            The file is no .xmodel, truncated, too large or contradicts itself.
        """
        proto = xmodel.read_graph(fname)
        try:
            graph = _from_proto(proto, cls)
        except DpuError as error:
            raise XmodelError(f"{fname}: {error}") from None
        if not graph.is_sorted:
            warnings.warn(f"{fname}: {UNSORTED}", UnsortedWarning, stacklevel=2)
        return graph

    def serialize(self, fname: str | os.PathLike[str]) -> None:
        """Write an .xmodel, atomically, with its ops in topological order."""
        xmodel.write_graph(self.to_proto(), fname)

    def get_name(self) -> str:
        """Name of the graph."""
        return self._name

    def create_op(
        self,
        name: str,
        kind: str,
        attrs: dict[str, AttrValue] | None = None,
        input_ops: dict[str, list[Op]] | None = None,
        subgraph: Subgraph | None = None,
    ) -> Op:
        """Add an op with its op type's default attributes, and infer its output tensor.

        Raises
        ------
        DpuError
            The name is taken, a required attribute or input is missing, the op type has no such
            argument, an input or the subgraph is not in the graph, or the shape cannot be inferred.
        """
        if subgraph is not None and subgraph.get_graph() is not self:
            raise DpuError(f"subgraph {subgraph.get_name()!r} is not in the graph")
        op = Op(self, name, kind)
        op.set_attrs(attrs or {})
        self._check_inputs(op, input_ops or {})
        op._inputs = {arg: list(ops) for arg, ops in (input_ops or {}).items()}
        op.infer_shape()
        return self._insert(op, subgraph)

    def clone_op(self, op: Op, input_ops: dict[str, list[Op]]) -> Op:
        """Add a copy of another graph's op, its tensor too; the emulation's own, as add_child.

        Raises
        ------
        DpuError
            The name is taken.
        """
        clone, tensor = Op(self, op.get_name(), op.get_type()), op.get_output_tensor()
        clone._attrs = dict(op._attrs)
        clone._inputs = {arg: list(ops) for arg, ops in input_ops.items()}
        clone.replace_output_tensor(Tensor.clone(tensor))
        return self._insert(clone, None)

    def _insert(self, op: Op, subgraph: Subgraph | None) -> Op:
        name = op.get_name()
        if name in self._ops:
            raise DpuError(f"op {name!r} is in the graph already")
        for ops in op._inputs.values():
            for source in ops:
                source._fanout.append(op)
        self._ops[name] = op
        self._order = None
        (subgraph or self._root)._own[name] = op
        return op

    def create_const_op(self, name: str, data: Any, /) -> Op:
        """Add a `const` op that holds a numpy array of integers or floats.

        Raises
        ------
        DpuError
            The array holds something else, or the name is taken.
        """
        import numpy as np

        values = np.ascontiguousarray(data)
        kind = {"f": "FLOAT", "i": "INT", "u": "UINT"}.get(values.dtype.kind)
        if kind is None:
            raise DpuError(f"const {name!r} cannot hold {values.dtype}: integers or floats only")
        attrs = {
            "shape": list(values.shape),
            "data_type": f"{kind}{values.dtype.itemsize * 8}",
            "data": values.tobytes(),
        }
        return self.create_op(name, "const", attrs)

    def remove_op(self, op: Op) -> None:
        """Remove an op of this graph that nobody reads."""
        self._check_own(op)
        if op.get_fanout_num():
            raise DpuError(f"op {op.get_name()!r} still has readers")
        for ops in op.get_input_ops().values():
            for source in ops:
                source._fanout.remove(op)
        self.get_leaf_subgraph(op)._own.pop(op.get_name())
        del self._ops[op.get_name()]
        self._order = None

    def replace_input(self, op: Op, old: Op, new: Op) -> None:
        """Let `op` read `new` where it reads `old`; the emulation's own, as add_child."""
        for arg, sources in op._inputs.items():
            times = sources.count(old)
            op._inputs[arg] = [new if source is old else source for source in sources]
            for _ in range(times):
                old._fanout.remove(op)
                new._fanout.append(op)
        self._order = None

    def _check_inputs(self, op: Op, inputs: dict[str, list[Op]]) -> None:
        """Refuse inputs for an op that its type does not take, or from outside of this graph."""
        for source in (source for ops in inputs.values() for source in ops):
            self._check_own(source)
        counts = {name: len(ops) for name, ops in inputs.items()}
        op_defs.check_inputs(op.get_type(), counts, f"op {op.get_name()!r}")

    def _check_own(self, op: Op) -> None:
        """Refuse an op that is not in this graph."""
        if not isinstance(op, Op):
            raise TypeError(f"wanted an xir.Op, not {type(op).__name__}")
        if self._ops.get(op.get_name()) is not op:
            raise DpuError(f"op {op.get_name()!r} is not in the graph")

    def get_op(self, name: str) -> Op | Any:
        """The op called `name`, or None."""
        return self._ops.get(name)

    def has_op(self, name: str) -> bool:
        """Whether there is an op called `name`; the emulation's own, as add_child."""
        return name in self._ops

    def get_ops(self) -> set[Op]:
        """All ops, in no order (as in XIR)."""
        return set(self._ops.values())

    def get_op_num(self) -> int:
        """Number of ops."""
        return len(self._ops)

    def get_tensors(self) -> set[Tensor]:
        """All tensors, in no order (as in XIR)."""
        return {op.get_output_tensor() for op in self._ops.values()}

    def get_tensor(self, name: str) -> Tensor | Any:
        """The tensor called `name`, or None."""
        tensors = (op.get_output_tensor() for op in self._ops.values())
        return next((tensor for tensor in tensors if tensor.name == name), None)

    def get_tensor_producer(self, tensor: Tensor) -> Op | Any:
        """The op that computes `tensor`, or None."""
        return self._root.get_tensor_producer(tensor)

    def get_head_ops(self) -> set[Op]:
        """The ops without inputs."""
        return {op for op in self._ops.values() if not op.get_input_num()}

    def get_tail_ops(self) -> set[Op]:
        """The ops that nobody reads."""
        return {op for op in self._ops.values() if not op.get_fanout_num()}

    def toposort(self) -> list[Op]:
        """All ops, producers before consumers, else in the file's order."""
        return list(self._sorted()[0])

    @property
    def is_sorted(self) -> bool:
        """Whether each op was read or added behind those that it reads; the emulation's own.

        The board's XIR crashes on a file whose ops are not in such an order.
        """
        return self._sorted()[0] == list(self._ops.values())

    def _sorted(self) -> tuple[list[Op], dict[str, int]]:
        """All ops in order, and the place of each name in it."""
        if self._order is None:
            order = _toposort(self._ops)
            self._order = order, {op.get_name(): place for place, op in enumerate(order)}
        return self._order

    def _in_order(self, names: Iterable[str]) -> list[Op]:
        """The named ops, producers before consumers."""
        order, places = self._sorted()
        return [order[place] for place in sorted(places[name] for name in names)]

    def infer_shape(self) -> None:
        """Infer every op's output tensor anew."""
        for op in self.toposort():
            op.infer_shape()

    def get_root_subgraph(self) -> Subgraph:
        """The subgraph that holds everything."""
        return self._root

    def get_leaf_subgraph(self, op: Op) -> Subgraph:
        """The deepest subgraph that holds `op`.

        Raises
        ------
        DpuError
            None does.
        """
        found = self._root.find_child_subgraph_by_op(op)
        if found is None:
            raise DpuError(f"no subgraph holds op {op.get_name()!r}")
        return found

    def save_as_dot(self, fname: str | os.PathLike[str]) -> None:
        """Write the graph in Graphviz's language."""
        Path(fname).write_text(_dot(self.toposort()), encoding="utf-8")

    def save_as_image(self, fname: str | os.PathLike[str], format: str) -> None:
        """Draw the graph with Graphviz's `dot` program.

        Raises
        ------
        UnsupportedError
            Graphviz is not installed, or refuses the format.
        """
        command, text = ["dot", f"-T{format}", "-o", os.fspath(fname)], _dot(self.toposort())
        try:
            subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        except FileNotFoundError:
            raise UnsupportedError("save_as_image needs Graphviz: apt install graphviz") from None
        except subprocess.CalledProcessError as error:
            raise UnsupportedError(f"Graphviz failed: {error.stderr.decode()[:200]}") from None

    def to_proto(self) -> Any:
        """The graph as a ``serial_v2.Graph`` message, its ops in topological order."""
        proto = GraphProto(graph_name=self._name)
        for op in self.toposort():
            _store_op(op, proto.op_node.add())
        _store_subgraph(self._root, proto.subg_root)
        self._store_attrs(proto.graph_attr)
        proto.op_defs.extend(self._op_defs)
        return proto

    def __repr__(self) -> str:
        return f"<xir.Graph named '{self._name}'>"

    def __str__(self) -> str:
        what = f"op_num: {len(self._ops)}, attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"


class _Template:
    """A class that the binding only names: nothing in Python makes an instance."""

    def __init__(self, *_: object) -> None:
        raise TypeError(f"xir.{type(self).__name__}: only XIR's C++ code makes one")


class OpTemplate(_Template):
    """An op of a pattern that XIR's C++ code looks for."""


class GraphTemplate(_Template):
    """A pattern that XIR's C++ code looks for."""


def _toposort(ops: dict[str, Op]) -> list[Op]:
    place = {name: index for index, name in enumerate(ops)}
    by_place = list(ops.values())
    # A reader that reads twice counts once.
    readers = [{place[r.get_name()] for r in op.get_fanout_ops()} for op in by_place]
    order = [by_place[index] for index in _first_ready(readers)]
    if len(order) < len(ops):
        done = set(order)
        stuck = next(op.get_name() for op in by_place if op not in done)
        raise DpuError(f"the graph has a cycle through op {stuck!r}")
    return order


def _first_ready(readers: list[set[int]]) -> list[int]:
    """The places 0, 1, ... with what they wait for first, else in order; those in cycles lack."""
    waiting = [0] * len(readers)
    for places in readers:
        for reader in places:
            waiting[reader] += 1
    ready = [place for place, count in enumerate(waiting) if not count]  # a heap: it is sorted
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    return order


def _from_proto(proto: Any, kind: type[Graph] = Graph) -> Graph:
    graph = kind(proto.graph_name)
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
    return graph


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
        raise XmodelError(f"op {op.get_name()!r}: a tensor of {len(proto.tensor_dim)} dimensions")
    dims = list(proto.tensor_dim)
    if 0 in dims or math.prod(dims) > MAX_ELEMENTS:
        raise XmodelError(f"op {op.get_name()!r}: a tensor of shape {dims} is refused")
    tensor = Tensor(proto.tensor_name, dims, DataType(kind, proto.tensor_bit_width))
    tensor._load_attrs(proto.tensor_attr)
    return tensor


def _load_subgraph(graph: Graph, proto: Any, parent: Subgraph | None, seen: set[str]) -> Subgraph:
    subgraph = Subgraph(graph, proto.subgraph_name, parent)
    subgraph._load_attrs(proto.subg_attr)
    for name in proto.op_name:
        if name not in graph._ops:
            raise XmodelError(f"subgraph {proto.subgraph_name!r} lists {name!r}, an unknown op")
        if name in seen:
            raise XmodelError(f"op {name!r} lies in two subgraphs")
        seen.add(name)
        subgraph._own[name] = graph._ops[name]
    for child in proto.subg_child:
        subgraph._children.append(_load_subgraph(graph, child, subgraph, seen))
    return subgraph


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


def _dot(ops: Iterable[Op]) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph {", "  node [shape=box];"]
    for op in ops:
        label = f"{op.get_name()}\n{op.get_type()} {op.get_output_tensor().dims}"
        lines.append(f"  {quote(op.get_name())} [label={quote(label)}];".replace("\n", "\\n"))
        for ops in op.get_input_ops().values():
            lines += [f"  {quote(s.get_name())} -> {quote(op.get_name())};" for s in ops]
    return "\n".join([*lines, "}", ""])
