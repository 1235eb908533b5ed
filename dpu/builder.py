"""Writes compiled-form .xmodels: int8 layers in one DPU subgraph between USER and CPU.

The files have the structure that AMD's compiler gives (const-fix parameters in
REG_0, upload and download, subgraphs with devices) but no machine code, and
name the emulator as their DPU: a board refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpu.arithmetic import MAX_SHIFT, Array
from dpu.errors import DpuError
from dpu.xir import Graph, Op

EMULATOR_DPU_NAME = "TUTELAGE_EMULATOR"
"""dpu_name of files that only the emulation runs."""

_QUANTISED = {"bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}


class CompiledModel:
    """A network under construction; every method adds one op and returns it.

    Sizes are [width, height], pads [left, right, top, bottom], as in XIR.
    """

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self._parameters = bytearray()
        self._dpu: list[Op] = []
        self._user: list[Op] = []
        self._cpu: list[Op] = []

    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """An int8 input (1, H, W, C)."""
        attrs = {"shape": list(dims), "data_type": "XINT8", "device": "USER"}
        source = self.graph.create_op(name, "data-fix", attrs)
        self._user.append(self._quantised(source, fix_point))
        return self._add(f"{name}_upload_0", "upload", {}, [source], fix_point)

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
        kind: str = "conv2d-fix",
    ) -> Op:
        """A convolution; weights int8 (O, H, W, I), bias int8 (O,) or None.

        Raises
        ------
        DpuError
            A shift is one that the DPU does not have.
        """
        acc = int(x.get_output_tensor().get_attr("fix_point")) + weights_fix_point
        self._check_shift(name, "output", acc - fix_point)
        inputs = {"weights": [self._constant(f"{name}_weights", weights, weights_fix_point)]}
        if bias is not None:
            self._check_shift(name, "bias", acc - bias_fix_point)
            inputs["bias"] = [self._constant(f"{name}_bias", bias, bias_fix_point)]
        attrs = {
            "kernel": [int(weights.shape[2]), int(weights.shape[1])],
            "stride": list(stride),
            "dilation": list(dilation),
            "pad": list(pad),
            "pad_mode": "FLOOR",
            "nonlinear": nonlinear,
        }
        return self._add(name, kind, attrs, [x], fix_point, inputs)

    def depthwise_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A convolution with one kernel per channel; weights int8 (1, H, W, C); else as conv2d."""
        kwargs["kind"] = "depthwise-conv2d-fix"
        return self.conv2d(name, x, weights, *args, **kwargs)

    def transposed_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A transposed convolution; weights int8 (O, H, W, I), turned; else as conv2d."""
        kwargs["kind"] = "transposed-conv2d-fix"
        return self.conv2d(name, x, weights, *args, **kwargs)

    def max_pool(
        self,
        name: str,
        x: Op,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int] = (0, 0, 0, 0),
    ) -> Op:
        """A max pool; keeps the fix point."""
        attrs = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad), "type": "MAX"}
        return self._add(name, "pool-fix", attrs, [x], x.get_output_tensor().get_attr("fix_point"))

    def avg_pool(
        self,
        name: str,
        x: Op,
        kernel: Sequence[int],
        stride: Sequence[int] = (1, 1),
        fix_point: int = 0,
        pad: Sequence[int] = (0, 0, 0, 0),
    ) -> Op:
        """An average pool with the DPU's reciprocal."""
        attrs = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad), "type": "AVG"}
        return self._add(name, "pool-fix", attrs, [x], fix_point)

    def concat(self, name: str, inputs: Sequence[Op]) -> Op:
        """Channels one after the other; all inputs must have one fix point."""
        points = {op.get_output_tensor().get_attr("fix_point") for op in inputs}
        if len(points) != 1:
            raise DpuError(f"concat {name!r} has inputs with the fix points {sorted(points)}")
        return self._add(name, "concat-fix", {"axis": 3}, inputs, points.pop())

    def add(self, name: str, inputs: Sequence[Op], fix_point: int, nonlinear: str = "NONE") -> Op:
        """Sum of the inputs."""
        attrs = {"type": "ADD", "nonlinear": nonlinear}
        return self._add(name, "eltwise-fix", attrs, inputs, fix_point)

    def multiply(self, name: str, inputs: Sequence[Op], fix_point: int) -> Op:
        """Product of the inputs."""
        attrs = {"type": "MUL", "nonlinear": "NONE"}
        return self._add(name, "eltwise-fix", attrs, inputs, fix_point)

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """The same values in another shape."""
        point = x.get_output_tensor().get_attr("fix_point")
        return self._add(name, "reshape-fix", {"shape": list(shape)}, [x], point)

    def output(self, x: Op) -> Op:
        """Copy `x` from the DPU and dequantise it: an output of the graph."""
        name, point = x.get_name(), x.get_output_tensor().get_attr("fix_point")
        out = self._add(f"{name}_download_0", "download", {}, [x], point)
        attrs = {**_QUANTISED, "fix_point": point, "device": "CPU"}
        result = self.graph.create_op(f"{name}_float", "fix2float", attrs, {"input": [out]})
        self._cpu.append(result)
        return result

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        self.finish().serialize(path)

    def finish(self) -> Graph:
        """The graph with its subgraphs, ready to run."""
        root = self.graph.get_root_subgraph()
        root._own = {}
        root._children = []
        for device, ops in (("USER", self._user), ("DPU", self._dpu), ("CPU", self._cpu)):
            if not ops:
                continue
            child = root.add_child(f"subgraph_{ops[0].get_name()}", ops)
            child.set_attr("device", device)
            if device == "DPU":
                child.set_attr("dpu_name", EMULATOR_DPU_NAME)
                child.set_attr("reg_id_to_parameter_value", {"REG_0": bytes(self._parameters)})
                child.set_attr("reg_id_to_size", {"REG_0": len(self._parameters)})
                child.set_attr("reg_id_to_context_type_v2", {"REG_0": "CONST"})
                child.set_attr("runner", {"run": "libvart-dpu-runner.so"})
        return self.graph

    def _add(
        self,
        name: str,
        kind: str,
        attrs: dict[str, Any],
        inputs: Sequence[Op],
        fix_point: int,
        more: dict[str, list[Op]] | None = None,
    ) -> Op:
        arguments = {"input": list(inputs), **(more or {})}
        op = self.graph.create_op(name, kind, {**attrs, "device": "DPU"}, arguments)
        self._dpu.append(self._quantised(op, fix_point))
        return op

    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        if values.dtype != np.int8:
            raise DpuError(f"{name!r} holds {values.dtype}, not int8")
        attrs = {"shape": list(values.shape), "data_type": "XINT8", "data": b"", "device": "DPU"}
        op = self._quantised(self.graph.create_op(name, "const-fix", attrs), fix_point)
        op.get_output_tensor().set_attr("reg_id", 0)
        op.get_output_tensor().set_attr("ddr_addr", len(self._parameters))
        self._parameters += values.tobytes()
        self._dpu.append(op)
        return op

    @staticmethod
    def _quantised(op: Op, fix_point: int) -> Op:
        for key, value in {**_QUANTISED, "fix_point": int(fix_point)}.items():
            op.get_output_tensor().set_attr(key, value)
        return op

    @staticmethod
    def _check_shift(name: str, what: str, shift: int) -> None:
        if not 0 <= shift <= MAX_SHIFT:
            raise DpuError(f"{name!r}: the {what} shift {shift} is not in 0..{MAX_SHIFT}")
