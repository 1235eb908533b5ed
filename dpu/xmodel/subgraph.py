"""Subgraphs: parts of a graph, each for one device."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.attributes import AttrHolder
from tutelage.dpu.xmodel.dot import dot
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.tensor import Tensor
from tutelage.dpu.xmodel.toposort import first_ready

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.graph import Graph


class Subgraph(AttrHolder):
    """A set of ops; the root's children each run on one device."""

    def __init__(self, graph: Graph, name: str, parent: Subgraph | None) -> None:
        super().__init__()
        self._graph = graph
        self._name = name
        self._parent = parent
        self._children: list[Subgraph] = []
        self._own: dict[str, Op] = {}
        self._executables: dict[Any, Any] = {}  # filled by `runtime.device`

    def get_name(self) -> str:
        """Return the name of the subgraph."""
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
        """The root above this subgraph, or the subgraph itself."""
        return self if self._parent is None else self._parent.root

    @property
    def depth(self) -> int:
        """Levels below the root, whose depth is 0."""
        return 0 if self._parent is None else self._parent.depth + 1

    def get_graph(self) -> Graph:
        """Return the graph that the subgraph belongs to."""
        return self._graph

    def get_parent(self) -> Subgraph | Any:
        """Return the parent; None for the root."""
        return self._parent

    def get_children(self) -> set[Subgraph]:
        """Return the children, in no order (as in XIR)."""
        return set(self._children)

    def get_children_num(self) -> int:
        """Return the number of children."""
        return len(self._children)

    def is_child(self, op: Subgraph) -> bool:
        """Return whether the subgraph `op` (named so in the binding) is a child of this one."""
        return op in self._children

    def _op_names(self) -> set[str]:
        names = set(self._own)
        for child in self._children:
            names |= child._op_names()
        return names

    def get_ops(self) -> set[Op]:
        """Return all ops in it, in no order (as in XIR)."""
        return {self._graph.get_op(name) for name in self._op_names()}

    def get_op_num(self) -> int:
        """Return the number of ops in it."""
        return len(self._op_names())

    def has_op(self, op: Op | str) -> bool:
        """Return whether it contains the op, given itself or by name."""
        name = op if isinstance(op, str) else op.get_name()
        return name in self._own or any(child.has_op(name) for child in self._children)

    def toposort(self) -> list[Op]:
        """Return its ops, producers before consumers."""
        return self._graph._in_order(self._op_names())

    def ordered_input_tensors(self) -> list[Tensor]:
        """Return the tensors from outside, in topological order of their first reader."""
        names = self._op_names()
        found: dict[str, Tensor] = {}
        for op in self.toposort():
            for ops in op.get_input_ops().values():
                for source in ops:
                    if source.get_name() not in names:
                        found.setdefault(source.get_name(), source.get_output_tensor())
        return list(found.values())

    def ordered_output_tensors(self) -> list[Tensor]:
        """Return the tensors read outside or not read at all, in topological order."""
        names = self._op_names()
        outputs = []
        for op in self.toposort():
            readers = op.get_fanout_ops()
            if not readers or any(reader.get_name() not in names for reader in readers):
                outputs.append(op.get_output_tensor())
        return outputs

    def get_input_tensors(self) -> set[Tensor]:
        """Return the tensors from outside, in no order (as in XIR)."""
        return set(self.ordered_input_tensors())

    def get_output_tensors(self) -> set[Tensor]:
        """Return the tensors that leave the subgraph, in no order (as in XIR)."""
        return set(self.ordered_output_tensors())

    def get_tensor_producer(self, tensor: Tensor) -> Op | Any:
        """Return the op in this subgraph that computes `tensor`, or None."""
        producer = tensor.producer
        return producer if producer is not None and self.has_op(producer) else None

    def toposort_child_subgraph(self) -> list[Subgraph]:
        """Return the children, producers before consumers.

        Raises
        ------
        DpuError
            Children depend on each other.
        """
        children = self._children
        home = {name: i for i, child in enumerate(children) for name in child._op_names()}
        readers: list[set[int]] = [set() for _ in children]
        for name, place in home.items():
            for ops in self._graph.get_op(name).get_input_ops().values():
                for source in ops:
                    other = home.get(source.get_name(), place)
                    if other != place:
                        readers[other].add(place)
        order = first_ready(readers)
        if len(order) < len(children):
            raise DpuError(f"the children of subgraph {self._name!r} depend on each other")
        return [children[place] for place in order]

    def create_child_subgraph(self) -> None:
        """Create one child for each op of a childless subgraph (as in XIR).

        Raises
        ------
        DpuError
            The subgraph has children.
        """
        if self._children:
            raise DpuError(f"subgraph {self._name!r} already has children")
        for name, op in self._own.items():
            self.add_child(f"subgraph_{name}", [op])
        self._own = {}

    def add_child(self, name: str, ops: Iterable[Op]) -> Subgraph:
        """Add a child that contains `ops`; not part of the board's XIR."""
        child = Subgraph(self._graph, name, self)
        child._own = {op.get_name(): op for op in ops}
        self._children.append(child)
        return child

    def merge_children(self, child_subgraph_list: Iterable[Subgraph]) -> Subgraph:
        """Replace some children by a single child with their ops; returns the new child.

        Raises
        ------
        DpuError
            One of them is not a child of this subgraph, or has children.
        """
        merged = list(child_subgraph_list)
        if not merged or any(child not in self._children or child._children for child in merged):
            raise DpuError("merge_children takes children of this subgraph that have no children")
        ops = [op for child in self._children if child in merged for op in child.toposort()]
        self._children = [child for child in self._children if child not in merged]
        return self.add_child(merged[0].get_name(), ops)

    def find_child_subgraph_by_op(self, op: Op) -> Subgraph | Any:
        """Return the deepest subgraph in this one (or itself) that contains `op`, or None."""
        return self.find_child_subgraph_by_op_name(op.get_name())

    def find_child_subgraph_by_op_name(self, name: str) -> Subgraph | Any:
        """Return the deepest subgraph in this one (or itself) with the op `name`, or None."""
        for child in self._children:
            if child.has_op(name):
                return child.find_child_subgraph_by_op_name(name)
        return self if name in self._own else None

    def save_as_dot(self, fname: str | os.PathLike[str]) -> None:
        """Write the subgraph as Graphviz source."""
        Path(fname).write_text(dot(self.toposort()), encoding="utf-8")

    def __repr__(self) -> str:
        return f"<xir.Subgraph named '{self._name}'>"

    def __str__(self) -> str:
        what = f"op_num: {self.get_op_num()}, attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"
