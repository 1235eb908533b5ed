"""Operations of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel import op_types
from tutelage.dpu.xmodel.attributes import AttrHolder, AttrValue, Self
from tutelage.dpu.xmodel.tensor import Tensor

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.graph import Graph


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
        """Return the name, which is unique in the graph."""
        return self._name

    def get_type(self) -> str:
        """Return the op type, e.g. "conv2d-fix"."""
        return self._type

    def get_graph(self) -> Graph:
        """Return the graph that the op belongs to."""
        return self._graph

    def get_input_num(self, name: str | None = None) -> int:
        """Return the number of inputs, of one argument or of all."""
        if name is not None:
            return len(self._inputs.get(name, []))
        return sum(len(ops) for ops in self._inputs.values())

    def get_input_ops(self) -> dict[str, list[Op]]:
        """Return the producers of the inputs, by argument name, sorted by name."""
        return {name: list(self._inputs[name]) for name in sorted(self._inputs)}

    def get_input_ops_by_name(self, name: str) -> list[Op]:
        """Return the producers of one argument, [] if the op has no such argument."""
        return list(self._inputs.get(name, []))

    def get_input_op(self, name: str, idx: int = 0) -> Op:
        """Return the producer of one input.

        Raises
        ------
        DpuError
            There is no such argument, or it has no such input.
        """
        ops = self._inputs.get(name)
        if ops is None:
            raise DpuError(f"op {self._name!r} ({self._type}) has no argument {name!r}")
        if not 0 <= idx < len(ops):
            raise DpuError(f"op {self._name!r}: argument {name!r} has no input {idx}")
        return ops[idx]

    def set_input_ops(self, name: str, ops: list[Op]) -> Op:
        """Replace the inputs of one argument; returns this op.

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
        """Replace `op_old` by `op_new` in all inputs.

        Raises
        ------
        DpuError
            `op_new` is not in the graph, or its tensor has another shape.
        """
        self._graph._check_own(op_new)
        old, new = (op.get_output_tensor().dims for op in (op_old, op_new))
        if old != new:
            raise DpuError(f"{op_new!r} of shape {new} cannot replace {op_old!r} of shape {old}")
        self._graph.replace_input(self, op_old, op_new)

    def get_input_tensors(self) -> list[Tensor]:
        """Return all input tensors, sorted by argument name."""
        return [op.get_output_tensor() for ops in self.get_input_ops().values() for op in ops]

    def get_input_tensors_by_name(self, name: str) -> list[Tensor]:
        """Return the input tensors of one argument."""
        return [op.get_output_tensor() for op in self.get_input_ops_by_name(name)]

    def get_input_tensor(self, name: str, idx: int = 0) -> Tensor:
        """Return one input tensor; raises DpuError as `get_input_op`."""
        return self.get_input_op(name, idx).get_output_tensor()

    def get_output_tensor(self) -> Tensor:
        """Return the output tensor; raises DpuError if it is not set yet."""
        if self._output is None:
            raise DpuError(f"op {self._name!r} has no output tensor")
        return self._output

    def replace_output_tensor(self, tensor: Tensor) -> None:
        """Replace the output tensor."""
        self._output = tensor
        tensor._producer = self

    def get_fanout_ops(self) -> list[Op]:
        """Return the ops that read the output, each once."""
        return list(dict.fromkeys(self._fanout))

    def get_fanout_num(self) -> int:
        """Return the number of inputs that read the output."""
        return len(self._fanout)

    def set_attrs(self: Self, attrs: dict[str, AttrValue]) -> Self:
        """Replace all attributes; missing optional ones get the op type's defaults.

        Raises
        ------
        DpuError
            A required attribute is missing.
        """
        self._attrs = op_types.complete(self._type, attrs, f"op {self._name!r}")
        return self

    def has_output_tensor(self) -> bool:
        """Return whether the output tensor is set; not part of the board's XIR."""
        return self._output is not None

    def infer_shape(self) -> None:
        """Set the output tensor's shape from the inputs' shapes and the attributes.

        An existing tensor keeps its name, element type and attributes.

        Raises
        ------
        UnsupportedError
            The op type has no rule and no attribute `shape`, or the inputs do not fit the op.
        """
        dims = op_types.infer_dims(self)
        if self._output is None:
            tensor = Tensor(self._name, dims, op_types.infer_dtype(self))
        else:
            tensor = Tensor(self._output.name, dims, self._output.dtype.upper())
            tensor._attrs = self._output._attrs
        self.replace_output_tensor(tensor)

    def __repr__(self) -> str:
        return f"<xir.Op named '{self._name}'>"

    def __str__(self) -> str:
        return f"{{name: '{self._name}', type: '{self._type}', attrs: {self.get_attrs()}}}"
