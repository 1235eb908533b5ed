"""Writes compiled-form .xmodels: int8 layers in DPU subgraphs between USER and CPU.

The files have the structure that AMD's compiler gives (const-fix parameters in
REG_0, upload and download, subgraphs with devices) but no machine code, and
name the emulator as their DPU: a board refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.core.fixed_point import MAX_SHIFT, SIXTH_SHIFT, Array, least_bias_shift
from tutelage.dpu.engine.program import CONSTANTS
from tutelage.dpu.ops import fix_ops
from tutelage.dpu.xmodel.graph import Graph, Op, Subgraph

QUANTISED = {"bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
"""What every int8 tensor and every fix op says besides its fix point."""

_UNNAMED = ("const", "const-fix", "upload")
"""Op types that AMD's compiler names no subgraph after."""

_CONSTANT, _WORKSPACE, _INPUTS, _OUTPUTS = range(4)
"""Numbers of the DPU's registers as AMD's compiler gives them (measured on its files)."""


class CompiledModel:
    """A network under construction; every method adds one op and returns it.

    Sizes are [width, height], pads [left, right, top, bottom], as in XIR.
    """

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self._parameters: dict[str, bytes] = {}  # by the name of the const-fix op

    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """An int8 input (1, H, W, C), copied to the DPU."""
        return self.upload(self.data(name, dims, fix_point))

    def data(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """An int8 input (1, H, W, C) as the user gives it."""
        attrs = {"shape": list(dims), "data_type": "XINT8", "device": "USER"}
        return self._quantised(self.graph.create_op(name, "data-fix", attrs), fix_point)

    def upload(self, x: Op) -> Op:
        """Copy an int8 value to the DPU."""
        return self._add(f"{x.get_name()}_upload_0", "upload", {}, [x], fix_ops.fix_point(x))

    def download(self, x: Op) -> Op:
        """Copy an int8 value from the DPU."""
        return self._add(f"{x.get_name()}_download_0", "download", {}, [x], fix_ops.fix_point(x))

    def to_float(self, name: str, x: Op) -> Op:
        """Dequantise an int8 value on the CPU."""
        return self.cpu(
            name, "fix2float", {**QUANTISED, "fix_point": fix_ops.fix_point(x)}, {"input": [x]}
        )

    def from_float(self, name: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Quantise a real value on the CPU; `attrs` are a fix op's."""
        op = self.cpu(name, "float2fix", attrs, {"input": [x]})
        return self._quantised(op, attrs["fix_point"])

    def cpu(self, name: str, kind: str, attrs: dict[str, Any], inputs: dict[str, list[Op]]) -> Op:
        """Any op, on the CPU."""
        return self.graph.create_op(name, kind, {**attrs, "device": "CPU"}, inputs)

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
        names: tuple[str, str] | None = None,
    ) -> Op:
        """A convolution; weights int8 (O, H, W, I), bias int8 (O,) or None.

        `names` are those of the weights' and the bias's op.

        Raises
        ------
        DpuError
            A shift is one that the DPU does not have, or the bias does not survive it.
        """
        acc = fix_ops.fix_point(x) + weights_fix_point
        self._check_shift(name, "output", acc - fix_point, 0)
        names = names or (f"{name}_weights", f"{name}_bias")
        inputs = {"weights": [self._constant(names[0], weights, weights_fix_point)]}
        if bias is not None:
            self._check_shift(name, "bias", acc - bias_fix_point, least_bias_shift(acc - fix_point))
            bias = shifted_bias(bias, bias_fix_point - acc)
            if bias is None:
                raise DpuError(f"{name!r}: the bias has bits that the DPU would drop")
            inputs["bias"] = [self._constant(names[1], bias, bias_fix_point)]
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
        nonlinear: str = "NONE",
    ) -> Op:
        """A max pool; keeps the fix point."""
        attrs = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad), "type": "MAX"}
        if nonlinear != "NONE":
            attrs["nonlinear"] = nonlinear
        return self._add(name, "pool-fix", attrs, [x], fix_ops.fix_point(x))

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

    def hard_sigmoid(self, name: str, x: Op, fix_point: int) -> Op:
        """The DPU's hard sigmoid, with the attributes that AMD's compiler gives it."""
        point = fix_ops.fix_point(x)
        attrs = {"hsigmoid_in": point, "shift_hsigmoid": SIXTH_SHIFT + point - fix_point}
        return self._add(name, "hard-sigmoid-fix", attrs, [x], fix_point)

    def concat(self, name: str, inputs: Sequence[Op], axis: int = 3) -> Op:
        """Channels one after the other; all inputs must have one fix point."""
        points = {fix_ops.fix_point(op) for op in inputs}
        if len(points) != 1:
            raise DpuError(f"concat {name!r} has inputs with the fix points {sorted(points)}")
        return self._add(name, "concat-fix", {"axis": axis}, inputs, points.pop())

    def add(self, name: str, inputs: Sequence[Op], fix_point: int, nonlinear: str = "NONE") -> Op:
        """Sum of the inputs."""
        attrs = {"type": "ADD", "nonlinear": nonlinear}
        return self._add(name, "eltwise-fix", attrs, inputs, fix_point)

    def multiply(self, name: str, inputs: Sequence[Op], fix_point: int) -> Op:
        """Product of the inputs; a map may meet one factor for each channel."""
        attrs = {"type": "MUL", "nonlinear": "NONE"}
        same = len({tuple(op.get_output_tensor().dims) for op in inputs}) == 1
        return self._add(name, "eltwise-fix" if same else "depthwise-fix", attrs, inputs, fix_point)

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """The same values in another shape."""
        return self._add(name, "reshape-fix", {"shape": list(shape)}, [x], fix_ops.fix_point(x))

    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """An op that only picks or moves values ("upsample-fix", "reduction_max-fix", ...)."""
        return self._add(name, kind, attrs, [x], fix_ops.fix_point(x))

    def output(self, x: Op) -> Op:
        """Copy `x` from the DPU and dequantise it: an output of the graph."""
        return self.to_float(f"{x.get_name()}_float", self.download(x))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        self.finish().serialize(path)

    def finish(self) -> Graph:
        """The graph with its subgraphs, ready to run."""
        root = self.graph.get_root_subgraph()
        root._own, root._children = {}, []
        for device, ops in partition(self.graph):
            named = next((op for op in ops if op.get_type() not in _UNNAMED), ops[0])
            child = root.add_child(f"subgraph_{named.get_name()}", ops)
            child.set_attr("device", device)
            if device == "DPU":
                self._seal(child)
            elif device == "CPU":
                child.set_attr("runner", {"run": "libvart-cpu-runner.so"})
        return self.graph

    def _seal(self, subgraph: Subgraph) -> None:
        """Lay out the parameters of a DPU subgraph and say what it is for."""
        parameters = bytearray()
        for op in subgraph._own.values():
            if op.get_type() == "const-fix":
                op.get_output_tensor().set_attr("reg_id", _CONSTANT)
                op.get_output_tensor().set_attr("ddr_addr", len(parameters))
                parameters += self._parameters[op.get_name()]
        sizes = {
            _CONSTANT: len(parameters),
            _INPUTS: sum(t.get_data_size() for t in subgraph.ordered_input_tensors()),
            _OUTPUTS: sum(t.get_data_size() for t in subgraph.ordered_output_tensors()),
        }
        uses = {_CONSTANT: "CONST", _INPUTS: "INTERFACE", _OUTPUTS: "INTERFACE"}
        subgraph.set_attr("dpu_name", EMULATOR_DPU_NAME)
        subgraph.set_attr("reg_id_to_parameter_value", {"REG_0": bytes(parameters)})
        subgraph.set_attr("reg_id_to_size", {f"REG_{n}": size for n, size in sizes.items()})
        contexts = {f"REG_{n}": use for n, use in uses.items()}
        subgraph.set_attr("reg_id_to_context_type_v2", contexts)
        subgraph.set_attr("runner", {"run": "libvart-dpu-runner.so"})

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
        return self._quantised(op, fix_point)

    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        if values.dtype != np.int8:
            raise DpuError(f"{name!r} holds {values.dtype}, not int8")
        attrs = {"shape": list(values.shape), "data_type": "XINT8", "data": b"", "device": "DPU"}
        name = self._unused(name)
        self._parameters[name] = values.tobytes()
        op = self._quantised(self.graph.create_op(name, "const-fix", attrs), fix_point)
        op.get_output_tensor()._name = f"{name.removesuffix('_new')}_fix"
        return op

    def _unused(self, name: str) -> str:
        """`name`, or a number behind it: of parameters that two layers share each has its own."""
        free, number = name, len(self._parameters)
        while free in self._parameters:
            free, number = f"{name}_{number}", number + 1
        return free

    @staticmethod
    def _quantised(op: Op, fix_point: int) -> Op:
        for key, value in {**QUANTISED, "fix_point": int(fix_point)}.items():
            op.get_output_tensor().set_attr(key, value)
        return op

    @staticmethod
    def _check_shift(name: str, what: str, shift: int, least: int) -> None:
        if not least <= shift <= MAX_SHIFT:
            raise DpuError(f"{name!r}: the {what} shift {shift} is not in {least}..{MAX_SHIFT}")


def shifted_bias(bias: Array, finer: int) -> Array | None:
    """The bytes of a bias that is `finer` bits finer than the accumulator; None where they round.

    One bit is the DPU's own (`fix_ops.doubled_bias`). Finer bits AMD's compiler shifts out of the
    bytes, and leaves the fix point as it was (measured on its files). How it rounds them is not
    known: no file was found in both forms.
    """
    lost = max(0, finer - 1)
    if np.any(bias.astype(np.int64) & ((1 << lost) - 1)):
        return None
    return bias >> lost


def partition(graph: Graph) -> list[tuple[str, list[Op]]]:
    """The ops by device, in stretches that can run one after the other.

    An op's stage is the number of changes of device on the way to it. What is of one stage and
    one device and hangs together is one stretch; each input of the user's is its own, as in
    AMD's files. What depends on no input goes with its first reader.
    """
    constants = constant_ops(graph)
    stages: dict[Op, int] = {}
    stretches: dict[Op, list[Op]] = {}  # by the op that opened them
    home: dict[Op, Op] = {}
    for op in graph.toposort():
        if op in constants:
            continue
        moving = [source for source in _sources(op) if source not in constants]
        stages[op] = max((stages[s] + (_device(s) != _device(op)) for s in moving), default=0)
        here = [s for s in moving if (stages[s], _device(s)) == (stages[op], _device(op))]
        near = list(dict.fromkeys(home[source] for source in here))
        first = near[0] if near else op
        for other in near[1:]:
            home |= dict.fromkeys(stretches[other], first)
            stretches[first] += stretches.pop(other)
        needed = [*_needed(op, constants, home), op]
        stretches.setdefault(first, []).extend(needed)
        home |= dict.fromkeys(needed, first)
    ordered = sorted(stretches.values(), key=lambda ops: stages[ops[-1]])
    return [(_device(ops[-1]), ops) for ops in ordered]


def constant_ops(graph: Graph) -> set[Op]:
    """The ops that depend on no input of the graph."""
    found: set[Op] = set()
    for op in graph.toposort():
        sources = _sources(op)
        if op.get_type() in CONSTANTS or (sources and found.issuperset(sources)):
            found.add(op)
    return found


def _needed(op: Op, constants: set[Op], home: dict[Op, Op]) -> list[Op]:
    """The constants behind an op that lie in no stretch yet, producers first."""
    found: list[Op] = []
    for source in _sources(op):
        if source in constants and source not in home and source not in found:
            found += [*_needed(source, constants, home), source]
    return found


def _sources(op: Op) -> list[Op]:
    return [source for sources in op.get_input_ops().values() for source in sources]


def _device(op: Op) -> str:
    return str(op.get_attr("device"))
