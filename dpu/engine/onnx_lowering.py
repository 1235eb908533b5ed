"""Lowering of int8 ops to a float32 ONNX graph that computes integers exactly.

The lowering of each op type, and the proof that float32 represents its values exactly, is in its
file in dpu/ops (`OpType.grid`, `int8_is_exact` and `emit`); dpu/ops/lowering.py explains how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.engine import onnx_file
from tutelage.dpu.engine.program import Program
from tutelage.dpu.ops.factors import scale_of
from tutelage.dpu.ops.fix import rounds_exactly
from tutelage.dpu.ops.int8 import fix_point
from tutelage.dpu.ops.lowering import Grid, Int8Form, as_int8, declared
from tutelage.dpu.ops.registry import is_int8, type_of
from tutelage.dpu.xmodel.op import Op

NO_INT8 = Int8Form()


def analyse(program: Program, trace: bool = False) -> dict[str, Grid]:
    """Return the ops that can be lowered exactly, with the grids of their outputs.

    With `trace` every tensor is requested, so ops are not merged.
    """
    grids: dict[str, Grid] = {}
    joined = set() if trace else _scaled(program)
    known = {op.get_name(): declared(op) for op in program.inputs}
    for op in program.steps:
        known[op.get_name()] = declared(op)
        sources = [s for ops in op.get_input_ops().values() for s in ops]
        moving = [s for s in sources if s.get_name() not in program.constants]
        if op.get_type() in program.plugins or not program.keeps_batch(op):
            continue
        inputs = [grids.get(s.get_name()) or known.get(s.get_name()) for s in moving]
        whole = len(moving) == op.get_input_num("input") or op.get_name() in joined
        if None in inputs or not moving or not (whole or type_of(op).takes_constants):
            continue
        places = [g for g in inputs if g is not None]
        if op.get_name() not in joined:
            grid = _grid(program, op, places)
        elif type_of(op).scaled:
            grid = type_of(op).scaled_grid(op, places[0])
        else:  # the factor
            grid = places[0]
        if grid is not None:
            grids[op.get_name()] = grid
    return grids


def _scaled(program: Program) -> set[str]:
    """Return the ops with a DPU factor (average pools), and the `mul` ops that apply it.

    Both become one exact sum times ``m / 2**n``, and the op's own value, a mean, is not computed;
    so neither may be an output, and only a `fix` may read the product.
    """
    found: set[str] = set()
    for op in program.steps:
        scale = scale_of(op)
        if scale is None or op in program.outputs or scale in program.outputs:
            continue
        if all(rounds_exactly(reader) for reader in scale.get_fanout_ops()):
            found |= {op.get_name(), scale.get_name()}
    return found


def _grid(program: Program, op: Op, inputs: list[Grid]) -> Grid | None:
    """Return the grid of an op's output, or None if the reference functions must compute the op."""
    kind = type_of(op)
    if not is_int8(op.get_type()):
        return kind.grid(op, inputs, program.constants)
    fix_point(op)  # raises if it is out of range
    return declared(op) if kind.int8_is_exact(op, inputs, program.constants) else None


class Lowering:
    """Builder of the ONNX graph of one stage.

    Parameters
    ----------
    program : source of constants
    steps : ops to lower, in order
    reads, writes : the graph's inputs and outputs; int8 NHWC arrays for
        fixed-point tensors, float32 for others
    form : parts computed with 8-bit integers
    apart : every op reads the graph's inputs, none the result of another op

    Attributes
    ----------
    wide_ops : names of the ops that needed float64
    """

    def __init__(
        self, program: Program, grids: dict[str, Grid],
        steps: list[Op], reads: list[Op], writes: list[Op],
        form: Int8Form = NO_INT8, apart: bool = False,
    ) -> None:  # fmt: skip
        self.program, self.grids, self.form = program, grids, form
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []
        self.wide_ops: list[str] = []
        self._values: dict[tuple[str, bool], str] = {}
        self._given = {op.get_name() for op in reads}
        self._inputs = [self._input(op) for op in reads]
        results: dict[tuple[str, bool], str] = {}
        for op in steps:
            result, channels_first = type_of(op).emit(op, self)
            (results if apart else self._values)[op.get_name(), channels_first] = result
        if apart:
            self._values = results
        self._outputs = [self._output(op) for op in writes]

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Constant values by op name."""
        return self.program.constants

    def model(self) -> bytes:
        """Return the serialized ONNX model, with a free batch size."""
        return onnx_file.model(self.nodes, self.constants, self._inputs, self._outputs)

    def node(self, kind: str, inputs: list[str], **attrs: Any) -> str:
        """Add a node; returns the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(onnx_file.node(kind, inputs, name, **attrs))
        return name

    def constant(self, array: Any, dtype: Any = np.float32) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self.constants)}"
        values = np.ascontiguousarray(array, dtype).reshape(np.shape(array))
        self.constants.append(onnx_file.tensor(values, name))
        return name

    def cast(self, x: str, dtype: Any) -> str:
        """Add a cast to a numpy element type; returns the name of its output."""
        return self.node("Cast", [x], to=onnx_file.ELEMENT_TYPES[dtype])

    def value(self, op: Op, channels_first: bool | None = None) -> str:
        """Return the name of an op's value, in NCHW or in the file's axis order."""
        name, rank = op.get_name(), op.get_output_tensor().ndim
        if channels_first is None or rank != 4:
            channels_first = rank == 4
        if (name, channels_first) not in self._values:
            perm = [0, 3, 1, 2] if channels_first else [0, 2, 3, 1]
            other = self._values[name, not channels_first]
            self._values[name, channels_first] = self.node("Transpose", [other], perm=perm)
        return self._values[name, channels_first]

    def x(self, op: Op, index: int = 0, channels_first: bool | None = None) -> str:
        """Return the name of an op's input, in the axis order of `value`."""
        return self.value(op.get_input_op("input", index), channels_first)

    def is_given(self, op: Op) -> bool:
        """Return whether an op's value is an input of the graph."""
        return op.get_name() in self._given

    def grid(self, op: Op) -> Grid:
        """Return the grid of an op's value."""
        known = self.grids.get(op.get_name()) or declared(op)
        assert known is not None
        return known

    def _input(self, op: Op) -> bytes:
        tensor = op.get_output_tensor()
        fixed = tensor.is_int8
        kind, name = np.int8 if fixed else np.float32, f"i_{len(self._values)}"
        value = self.cast(name, np.float32) if fixed else name
        if fixed and self.form.results:
            value = as_int8(self, value, op.get_name() in self.form.unsigned)
        self._values[op.get_name(), False] = value
        return onnx_file.value(name, kind, tensor.dims[1:])

    def _output(self, op: Op) -> bytes:
        tensor = op.get_output_tensor()
        fixed = tensor.is_int8
        kind, value = np.int8 if fixed else np.float32, self.value(op, False)
        value = self.cast(value, kind) if fixed else self.node("Identity", [value])
        return onnx_file.value(value, kind, tensor.dims[1:])
