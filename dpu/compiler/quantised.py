"""Writes quantised .xmodels: what vai_c_xir takes, in the form of AMD's PyTorch exporter.

Everything is float32. Each quantised value passes a `fix` op, which rounds it to multiples of
2^-fix_point; parameters are `const` ops with a `fix` of their own. Structure, names of ops and
attributes follow files of vai_q_pytorch (measured on PointPillars):

    data -> fix -> conv2d (const -> fix: weights, bias) -> relu -> fix -> ... -> fix

A value that only concats read has no fix of its own, the concat's rounds for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.fixed_point import LEAKY_SLOPE, Array, dequantise
from tutelage.dpu.compiler.builder import QUANTISED
from tutelage.dpu.ops.factors import pool_factor, pool_window
from tutelage.dpu.ops.fix_ops import ACTIVATIONS
from tutelage.dpu.xmodel.graph import Graph, Op
from tutelage.dpu.xmodel.op_definitions import definitions

_NONLINEAR = {name: kind for kind, name in ACTIVATIONS.items()}


class QuantisedModel:
    """A network under construction, with the methods of `compiler.builder.CompiledModel`.

    Every method adds one layer and returns the op that holds its int8 grid, a `fix` (reshapes,
    which round nothing, return themselves). Sizes are [width, height], pads [left, right, top,
    bottom], as in XIR. Parameters are int8 integers, stored as the real numbers they stand for.
    """

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self._outputs: list[Op] = []
        self._points: dict[Op, int] = {}

    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """A float32 input (1, H, W, C), rounded to int8."""
        attrs = {"shape": list(dims), "data_type": "FLOAT32"}
        return self._fixed(self.graph.create_op(self._name(name), "data", attrs), fix_point)

    def conv2d(
        self,
        name: str,
        x: Op,
        weights: Array,
        weights_fix_point: int,
        bias: Array | None,
        bias_fix_point: int,
        fix_point: int,
        stride: Sequence[int] = (1, 1),
        pad: Sequence[int] = (0, 0, 0, 0),
        nonlinear: str = "NONE",
        dilation: Sequence[int] = (1, 1),
        kind: str = "conv2d",
    ) -> Op:
        """A convolution; weights int8 (O, H, W, I), bias int8 (O,) or None."""
        channels = x.get_output_tensor().dims[3]
        depthwise = kind == "depthwise-conv2d"
        inputs = {
            "input": [x],
            "weights": [self._constant(f"{name}_weight", weights, weights_fix_point)],
        }
        if bias is not None:
            inputs["bias"] = [self._constant(f"{name}_bias", bias, bias_fix_point)]
        attrs = {
            "kernel": [int(weights.shape[2]), int(weights.shape[1])],
            "stride": list(stride),
            "dilation": list(dilation),
            "pad": list(pad),
            "pad_mode": "FLOOR",
            "in_dim": channels,
            "out_dim": channels * len(weights) if depthwise else len(weights),
            "group": channels if depthwise else channels // int(weights.shape[3]),
            "bias_term": bias is not None,
        }
        op = self.graph.create_op(self._name(name), kind, attrs, inputs)
        return self._fixed(self._activated(op, nonlinear), fix_point)

    def depthwise_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A convolution with one kernel per channel; weights int8 (1, H, W, C); else as conv2d."""
        kwargs["kind"] = "depthwise-conv2d"
        return self.conv2d(name, x, weights, *args, **kwargs)

    def transposed_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A transposed convolution; weights int8 (O, H, W, I), turned; else as conv2d."""
        kwargs["kind"] = "transposed-conv2d"
        return self.conv2d(name, x, weights, *args, **kwargs)

    def max_pool(
        self,
        name: str,
        x: Op,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int] = (0, 0, 0, 0),
        ceil: bool = False,
    ) -> Op:
        """A max pool; keeps the fix point. With `ceil` a last window may pass the border."""
        mode = "CEIL" if ceil else "FLOOR"
        op = self._pool(name, "maxpool2d", x, kernel, stride, pad, mode)
        return self._fixed(op, self._points[x])

    def avg_pool(
        self,
        name: str,
        x: Op,
        kernel: Sequence[int],
        stride: Sequence[int] = (1, 1),
        fix_point: int = 0,
        pad: Sequence[int] = (0, 0, 0, 0),
    ) -> Op:
        """An average pool as the DPU has it: a mean, and behind it a `mul` by the DPU's factor."""
        pool = self._pool(f"{name}_i0", "avgpool2d", x, kernel, stride, pad, "FLOOR")
        factor = np.float32(pool_factor(pool_window(pool)))
        attrs = {"shape": [1], "data_type": "float32", "data": factor.tobytes()}
        constant = self.graph.create_op(self._name(f"{name}_i1"), "const", attrs)
        inputs = {"input": [pool, constant]}
        return self._fixed(self.graph.create_op(self._name(name), "mul", {}, inputs), fix_point)

    def concat(self, name: str, inputs: Sequence[Op]) -> Op:
        """Channels one after the other; all inputs must have one fix point."""
        points = {self._points[op] for op in inputs}
        if len(points) != 1:
            raise DpuError(f"concat {name!r} has inputs with the fix points {sorted(points)}")
        op = self.graph.create_op(self._name(name), "concat", {"axis": 3}, {"input": list(inputs)})
        return self._fixed(op, points.pop())

    def add(self, name: str, inputs: Sequence[Op], fix_point: int, nonlinear: str = "NONE") -> Op:
        """Sum of the inputs."""
        op = self.graph.create_op(self._name(name), "add", {}, {"input": list(inputs)})
        return self._fixed(self._activated(op, nonlinear), fix_point)

    def multiply(self, name: str, inputs: Sequence[Op], fix_point: int) -> Op:
        """Product of the inputs."""
        op = self.graph.create_op(self._name(name), "mul", {}, {"input": list(inputs)})
        return self._fixed(op, fix_point)

    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """An op that only picks or moves values, such as "upsample"; it rounds nothing."""
        op = self.graph.create_op(self._name(name), kind, attrs, {"input": [x]})
        self._points[op] = self._points[x]
        return op

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """The same values in another shape: `flatten` where that says it, else `reshape`."""
        attrs: dict[str, Any] = {"shape": list(shape)}
        kind, rank = "reshape", x.get_output_tensor().ndim
        if len(shape) == 2 and rank > 2:
            kind, attrs = "flatten", {"start_axis": 1, "end_axis": rank - 1}
        return self.move(name, kind, x, attrs)

    def output(self, x: Op) -> Op:
        """Declare `x` an output of the graph."""
        self._outputs.append(x)
        return x

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        self.finish().serialize(path)

    def finish(self) -> Graph:
        """The graph, ready to run, to write and to compile."""
        self._drop_fixes_before_concats()
        kinds = dict.fromkeys(op.get_type() for op in self.graph.toposort())
        self.graph._op_defs = definitions(kinds)
        names = [op.get_name() for op in self._outputs]
        self.graph.set_attr("return_ops", names, "string_vec_value")
        return self.graph

    # -- pieces ----------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        """As AMD's exporter names ops: after the graph, with underscores for all else."""
        clean = re.sub(r"\W", "_", f"{self.graph.get_name()}__{name}")
        while self.graph.has_op(clean):  # "a/b_c" and "a_b/c"
            clean += "_"
        return clean

    def _activated(self, op: Op, nonlinear: str) -> Op:
        if nonlinear == "NONE":
            return op
        kind = _NONLINEAR[nonlinear]
        attrs = {"alpha": LEAKY_SLOPE} if nonlinear == "LEAKYRELU" else {}
        name = f"{op.get_name()}_{kind.replace('-', '_')}"
        activated = self.graph.create_op(name, kind, attrs, {"input": [op]})
        for key, value in attrs.items():
            activated.set_attr(key, value, "float_value")
        return activated

    def _pool(
        self, name: str, kind: str, x: Op, kernel: Sequence[int], stride: Sequence[int],
        pad: Sequence[int], pad_mode: str,
    ) -> Op:  # fmt: skip
        attrs = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad),
                 "pad_mode": pad_mode, "global": False}  # fmt: skip
        if kind == "avgpool2d":
            attrs |= {"count_include_pad": True, "count_include_invalid": True}
        return self.graph.create_op(self._name(name), kind, attrs, {"input": [x]})

    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        if values.dtype != np.int8:
            raise DpuError(f"{name!r} holds {values.dtype}, not int8")
        real = dequantise(values, fix_point)
        attrs = {"shape": list(values.shape), "data_type": "float32", "data": real.tobytes()}
        return self._fixed(self.graph.create_op(self._name(name), "const", attrs), fix_point)

    def _fixed(self, op: Op, fix_point: int) -> Op:
        attrs = {**QUANTISED, "fix_point": int(fix_point)}
        fixed = self.graph.create_op(f"{op.get_name()}_fix", "fix", attrs, {"input": [op]})
        self._points[fixed] = int(fix_point)
        return fixed

    def _drop_fixes_before_concats(self) -> None:
        """A computed value that only concats read leaves the rounding to them."""
        for op in self.graph.toposort():
            readers = op.get_fanout_ops()
            if op.get_type() != "fix" or not readers or op in self._outputs:
                continue
            source = op.get_input_op("input")
            computed = source.get_type() not in ("data", "const", "concat", "maxpool2d")
            if computed and all(reader.get_type() == "concat" for reader in readers):
                for reader in readers:
                    self.graph.replace_input(reader, op, source)
                self.graph.remove_op(op)
