"""Graphs of ops: the in-memory representation of an .xmodel throughout dpu/.

Names and behaviour of Graph, Subgraph, Op and Tensor follow the pybind11 module `xir` of Vitis AI
2.5 to 3.5, so that a script written for the board runs unchanged (dpu/runtime/xir.py). Engines,
writer and tools use these classes.

Where the binding returns None for something that does not exist, so do these classes, with the
type `X | Any`: callers that know it exists need no check.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tutelage.core.errors import (
    UNSORTED,
    DpuError,
    UnsortedWarning,
    UnsupportedError,
    XmodelError,
)
from tutelage.dpu.xmodel import file as xmodel
from tutelage.dpu.xmodel import op_types
from tutelage.dpu.xmodel.attributes import AttrHolder, AttrValue
from tutelage.dpu.xmodel.dot import dot
from tutelage.dpu.xmodel.message import load, store
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.schema import GraphProto
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.dpu.xmodel.tensor import Tensor
from tutelage.dpu.xmodel.toposort import toposort


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
        """Read an .xmodel; issues an `UnsortedWarning` if `is_sorted` is false.

        Raises
        ------
        XmodelError
            The file is not an .xmodel, is truncated, too large or inconsistent.
        """
        proto = xmodel.read_graph(fname)
        try:
            graph = cls.from_proto(proto)
        except DpuError as error:
            raise XmodelError(f"{fname}: {error}") from None
        if not graph.is_sorted:
            warnings.warn(f"{fname}: {UNSORTED}", UnsortedWarning, stacklevel=2)
        return graph

    @classmethod
    def from_proto(cls, proto: Any) -> Graph:
        """Return the graph of a ``serial_v2.Graph`` message; not part of the board's XIR.

        Raises
        ------
        DpuError
            The message is inconsistent.
        """
        graph = cls(proto.graph_name)
        load(proto, graph)
        return graph

    def serialize(self, fname: str | os.PathLike[str]) -> None:
        """Write an .xmodel, atomically, with its ops in topological order."""
        xmodel.write_graph(self.to_proto(), fname)

    def get_name(self) -> str:
        """Return the name of the graph."""
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
            The name is in use, a required attribute or input is missing, the op type has no such
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
        """Add a copy of another graph's op and its tensor; not part of the board's XIR.

        Raises
        ------
        DpuError
            The name is in use.
        """
        clone, tensor = Op(self, op.get_name(), op.get_type()), op.get_output_tensor()
        clone._attrs = dict(op._attrs)
        clone._inputs = {arg: list(ops) for arg, ops in input_ops.items()}
        clone.replace_output_tensor(Tensor.clone(tensor))
        return self._insert(clone, None)

    def _insert(self, op: Op, subgraph: Subgraph | None) -> Op:
        name = op.get_name()
        if name in self._ops:
            raise DpuError(f"op {name!r} is already in the graph")
        for ops in op._inputs.values():
            for source in ops:
                source._fanout.append(op)
        self._ops[name] = op
        self._order = None
        (subgraph or self._root)._own[name] = op
        return op

    def create_const_op(self, name: str, data: Any, /) -> Op:
        """Add a `const` op with the data of a numpy array of integers or floats.

        Raises
        ------
        DpuError
            The array has another element type, or the name is in use.
        """
        import numpy as np

        values = np.ascontiguousarray(data)
        kind = {"f": "FLOAT", "i": "INT", "u": "UINT"}.get(values.dtype.kind)
        if kind is None:
            raise DpuError(f"const {name!r} cannot store {values.dtype}: only integers and floats")
        attrs = {
            "shape": list(values.shape),
            "data_type": f"{kind}{values.dtype.itemsize * 8}",
            "data": values.tobytes(),
        }
        return self.create_op(name, "const", attrs)

    def remove_op(self, op: Op) -> None:
        """Remove an op of this graph that no other op reads.

        Raises
        ------
        DpuError
            The op is not in the graph, or another op reads it.
        """
        self._check_own(op)
        if op.get_fanout_num():
            raise DpuError(f"op {op.get_name()!r} is still read by other ops")
        for ops in op.get_input_ops().values():
            for source in ops:
                source._fanout.remove(op)
        self.get_leaf_subgraph(op)._own.pop(op.get_name())
        del self._ops[op.get_name()]
        self._order = None

    def replace_input(self, op: Op, old: Op, new: Op) -> None:
        """Replace `old` by `new` in the inputs of `op`; not part of the board's XIR."""
        for arg, sources in op._inputs.items():
            times = sources.count(old)
            op._inputs[arg] = [new if source is old else source for source in sources]
            for _ in range(times):
                old._fanout.remove(op)
                new._fanout.append(op)
        self._order = None

    def _check_inputs(self, op: Op, inputs: dict[str, list[Op]]) -> None:
        """Raise an error for inputs that the op type does not take or from outside this graph."""
        for source in (source for ops in inputs.values() for source in ops):
            self._check_own(source)
        counts = {name: len(ops) for name, ops in inputs.items()}
        op_types.check_inputs(op.get_type(), counts, f"op {op.get_name()!r}")

    def _check_own(self, op: Op) -> None:
        """Raise an error for an op that is not in this graph."""
        if not isinstance(op, Op):
            raise TypeError(f"expected an xir.Op, not {type(op).__name__}")
        if self._ops.get(op.get_name()) is not op:
            raise DpuError(f"op {op.get_name()!r} is not in the graph")

    def get_op(self, name: str) -> Op | Any:
        """Return the op called `name`, or None."""
        return self._ops.get(name)

    def has_op(self, name: str) -> bool:
        """Return whether there is an op called `name`; not part of the board's XIR."""
        return name in self._ops

    def get_ops(self) -> set[Op]:
        """Return all ops, in no order (as in XIR)."""
        return set(self._ops.values())

    def get_op_num(self) -> int:
        """Return the number of ops."""
        return len(self._ops)

    def get_tensors(self) -> set[Tensor]:
        """Return all tensors, in no order (as in XIR)."""
        return {op.get_output_tensor() for op in self._ops.values()}

    def get_tensor(self, name: str) -> Tensor | Any:
        """Return the tensor called `name`, or None."""
        tensors = (op.get_output_tensor() for op in self._ops.values())
        return next((tensor for tensor in tensors if tensor.name == name), None)

    def get_tensor_producer(self, tensor: Tensor) -> Op | Any:
        """Return the op that computes `tensor`, or None."""
        return self._root.get_tensor_producer(tensor)

    def get_head_ops(self) -> set[Op]:
        """Return the ops without inputs."""
        return {op for op in self._ops.values() if not op.get_input_num()}

    def get_tail_ops(self) -> set[Op]:
        """Return the ops that no other op reads."""
        return {op for op in self._ops.values() if not op.get_fanout_num()}

    def toposort(self) -> list[Op]:
        """Return all ops, producers before consumers, otherwise in the file's order."""
        return list(self._sorted()[0])

    @property
    def is_sorted(self) -> bool:
        """Whether each op was read or added after its inputs; not part of the board's XIR.

        The board's XIR crashes on a file whose ops are not in such an order.
        """
        return self._sorted()[0] == list(self._ops.values())

    def _sorted(self) -> tuple[list[Op], dict[str, int]]:
        """Return all ops in topological order, and the position of each name."""
        if self._order is None:
            order = toposort(self._ops)
            self._order = order, {op.get_name(): place for place, op in enumerate(order)}
        return self._order

    def _in_order(self, names: Iterable[str]) -> list[Op]:
        """Return the named ops, producers before consumers."""
        order, places = self._sorted()
        return [order[place] for place in sorted(places[name] for name in names)]

    def infer_shape(self) -> None:
        """Infer every op's output tensor again."""
        for op in self.toposort():
            op.infer_shape()

    def get_root_subgraph(self) -> Subgraph:
        """Return the subgraph that contains all ops."""
        return self._root

    def get_leaf_subgraph(self, op: Op) -> Subgraph:
        """Return the deepest subgraph that contains `op`.

        Raises
        ------
        DpuError
            No subgraph contains it.
        """
        found = self._root.find_child_subgraph_by_op(op)
        if found is None:
            raise DpuError(f"no subgraph contains op {op.get_name()!r}")
        return found

    def save_as_dot(self, fname: str | os.PathLike[str]) -> None:
        """Write the graph as Graphviz source."""
        Path(fname).write_text(dot(self.toposort()), encoding="utf-8")

    def save_as_image(self, fname: str | os.PathLike[str], format: str) -> None:
        """Draw the graph with Graphviz's `dot` program.

        Raises
        ------
        UnsupportedError
            Graphviz is not installed, or does not support the format.
        """
        command, text = ["dot", f"-T{format}", "-o", os.fspath(fname)], dot(self.toposort())
        try:
            subprocess.run(command, input=text.encode(), check=True, capture_output=True)
        except FileNotFoundError:
            raise UnsupportedError("save_as_image needs Graphviz: apt install graphviz") from None
        except subprocess.CalledProcessError as error:
            raise UnsupportedError(f"Graphviz failed: {error.stderr.decode()[:200]}") from None

    def to_proto(self) -> Any:
        """Return the graph as a ``serial_v2.Graph`` message, its ops in topological order."""
        proto = GraphProto(graph_name=self._name)
        store(self, proto)
        return proto

    def __repr__(self) -> str:
        return f"<xir.Graph named '{self._name}'>"

    def __str__(self) -> str:
        what = f"op_num: {len(self._ops)}, attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"
