"""Builder of quantised .xmodels, the input of vai_c_xir, in the form of AMD's PyTorch exporter.

Everything is float32. Each quantised value passes through a `fix` op, which rounds it to multiples
of 2^-fix_point; parameters are `const` ops with a `fix` each. Structure, names of ops and
attributes follow files of vai_q_pytorch (measured on PointPillars):

    data -> fix -> conv2d (const -> fix: weights, bias) -> relu -> fix -> ... -> fix

A value that is read only by concats has no separate fix; that of the concat rounds it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.fixed_point import LEAKY_SLOPE, Array, dequantise
from tutelage.dpu.compiler.builder import Form, ModelBuilder, check_int8
from tutelage.dpu.ops.factors import SCALING
from tutelage.dpu.ops.fix import QUANTISED
from tutelage.dpu.ops.registry import activation_type, op_type, type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.op_types import definitions


class QuantisedModel(ModelBuilder):
    """A network in quantised form.

    Every method returns the op whose values are on a layer's int8 grid: a `fix`, or the op itself
    if it only moves values. Parameters are stored as the real numbers that they represent.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._outputs: list[Op] = []
        self._points: dict[Op, int] = {}

    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """Add a float32 input (1, H, W, C), rounded to int8."""
        attrs = {"shape": list(dims), "data_type": "FLOAT32"}
        return self._fixed(self.graph.create_op(self._name(name), "data", attrs), fix_point)

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """Add a reshape, as `flatten` if that is equivalent."""
        attrs: dict[str, Any] = {"shape": list(shape)}
        kind, dims = "reshape", x.get_output_tensor().dims
        if len(shape) == 2 and len(dims) > 2 and shape[0] == dims[0]:
            kind, attrs = "flatten", {"start_axis": 1, "end_axis": len(dims) - 1}
        return self.move(name, kind, x, attrs)

    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Add an op that only selects or moves values, such as "upsample", without rounding."""
        op = self.graph.create_op(self._name(name), kind, attrs, {"input": [x]})
        self._points[op] = self._points[x]
        return op

    def join(self, name: str, inputs: Sequence[Op], axis: int) -> Op:
        """Add a concatenation of values of one fix point along any axis, without rounding."""
        op = self.graph.create_op(self._name(name), "concat", {"axis": axis}, {"input": [*inputs]})
        (self._points[op],) = {self.point(x) for x in inputs}
        return op

    def output(self, x: Op) -> Op:
        """Declare `x` an output of the graph."""
        self._outputs.append(x)
        return x

    def finish(self) -> Graph:
        """Return the graph, ready to run, to write and to compile."""
        self._drop_fixes_before_concats()
        kinds = dict.fromkeys(op.get_type() for op in self.graph.toposort())
        self.graph._op_defs = definitions(kinds)
        names = [op.get_name() for op in self._outputs]
        self.graph.set_attr("return_ops", names, "string_vec_value")
        return self.graph

    # -- the form ----------------------------------------------------------------------------

    def point(self, op: Op) -> int:
        """Return the fix point that the op, or its input, rounds to."""
        return self._points[op]

    def _parameter_names(self, name: str) -> tuple[str, str]:
        return f"{name}_weight", f"{name}_bias"

    def _layer(
        self,
        name: str,
        inputs: dict[str, list[Op]],
        fix_point: int,
        nonlinear: str = "NONE",
        *,
        quantised: Form,
        compiled: Form,
    ) -> Op:
        op = self._scaled(name, inputs, *quantised)
        return self._fixed(self._activated(op, nonlinear), fix_point)

    def _scaled(
        self, name: str, inputs: dict[str, list[Op]], kind: str, attrs: dict[str, Any]
    ) -> Op:
        """Add the op, followed by a `mul` with the DPU's factor if it has one."""
        if not op_type(kind).scaled:
            return self.graph.create_op(self._name(name), kind, attrs, inputs)
        op = self.graph.create_op(self._name(f"{name}_i0"), kind, attrs, inputs)
        factor = np.float32(type_of(op).factor(op))
        values = {"shape": [1], "data_type": "float32", "data": factor.tobytes()}
        constant = self.graph.create_op(self._name(f"{name}_i1"), "const", values)
        return self.graph.create_op(self._name(name), SCALING, {}, {"input": [op, constant]})

    def _name(self, name: str) -> str:
        """Return an op name as AMD's exporter builds it: graph and op name, with underscores."""
        clean = re.sub(r"\W", "_", f"{self.graph.get_name()}__{name}")
        while self.graph.has_op(clean):  # "a/b_c" and "a_b/c"
            clean += "_"
        return clean

    def _activated(self, op: Op, nonlinear: str) -> Op:
        if nonlinear == "NONE":
            return op
        kind = activation_type(nonlinear)
        attrs = {"alpha": LEAKY_SLOPE} if nonlinear == "LEAKYRELU" else {}
        name = f"{op.get_name()}_{kind.replace('-', '_')}"
        return self.graph.create_op(name, kind, attrs, {"input": [op]})

    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        check_int8(name, values)
        real = dequantise(values, fix_point)
        attrs = {"shape": list(values.shape), "data_type": "float32", "data": real.tobytes()}
        return self._fixed(self.graph.create_op(self._name(name), "const", attrs), fix_point)

    def _fixed(self, op: Op, fix_point: int) -> Op:
        attrs = {**QUANTISED, "fix_point": int(fix_point)}
        fixed = self.graph.create_op(f"{op.get_name()}_fix", "fix", attrs, {"input": [op]})
        self._points[fixed] = int(fix_point)
        return fixed

    def _drop_fixes_before_concats(self) -> None:
        """Remove the fix of a computed value if only concats that round read it."""
        for op in self.graph.toposort():
            readers = op.get_fanout_ops()
            if not type_of(op).rounds or not readers or op in self._outputs:
                continue
            source = op.get_input_op("input")
            if _is_computed(source) and all(map(_joins_and_rounds, readers)):
                for reader in readers:
                    self.graph.replace_input(reader, op, source)
                self.graph.remove_op(op)


def _joins_and_rounds(op: Op) -> bool:
    """Return whether an op is a concat followed by a `fix`."""
    return type_of(op).joins and any(type_of(reader).rounds for reader in op.get_fanout_ops())


def _is_computed(op: Op) -> bool:
    """Return whether an op computes values, rather than providing or moving them."""
    return not type_of(op).source and not type_of(op).moves
