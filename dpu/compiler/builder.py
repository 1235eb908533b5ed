"""Builds a network layer by layer, in quantised or in compiled form.

`ModelBuilder` has a method for each kind of layer. What differs between the forms is in its two
subclasses: `CompiledModel` here and `QuantisedModel` (quantised.py).
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError
from tutelage.core.fingerprint import EMULATOR_DPU_NAME
from tutelage.core.fixed_point import MAX_SHIFT, SIXTH_SHIFT, Array, least_bias_shift
from tutelage.dpu.compiler.partition import partition, separated
from tutelage.dpu.ops.convolution import exported_attributes
from tutelage.dpu.ops.fix import QUANTISED
from tutelage.dpu.ops.int8 import fix_point as fix_point_of
from tutelage.dpu.ops.products import shifted_bias
from tutelage.dpu.ops.registry import int8_type, type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph

_CONSTANT, _WORKSPACE, _INPUTS, _OUTPUTS = range(4)
"""Numbers of the DPU's registers as AMD's compiler gives them (measured on its files)."""


Form = tuple[str, dict[str, Any]]
"""Op type and attributes of a layer in one form of file."""


class ModelBuilder(ABC):
    """A network under construction.

    Every method adds one layer and returns the op that has its int8 values. Sizes are [width,
    height], pads [left, right, top, bottom], as in XIR. Weights and biases are int8 integers.
    """

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)

    @abstractmethod
    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """An input (1, H, W, C), of int8 values."""

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
        names: tuple[str, str] | None = None,
    ) -> Op:
        """A convolution; weights int8 (O, H, W, I), bias int8 (O,) or None.

        `names` are those of the weights' and the bias's op.

        Raises
        ------
        DpuError
            In compiled form: a shift is one that the DPU does not have, or the bias does not
            survive it.
        """
        accumulator = self.point(x) + weights_fix_point
        bias = self._bias(name, bias, accumulator - bias_fix_point, accumulator - fix_point)
        names = names or self._parameter_names(name)
        inputs = {"weights": [self._constant(names[0], weights, weights_fix_point)]}
        if bias is not None:
            inputs["bias"] = [self._constant(names[1], bias, bias_fix_point)]
        window = {
            "kernel": [int(weights.shape[2]), int(weights.shape[1])],
            "stride": list(stride),
            "dilation": list(dilation),
            "pad": list(pad),
            "pad_mode": "FLOOR",
        }
        shape = exported_attributes(kind, weights, x.get_output_tensor().dims[3])
        return self._layer(
            name, {"input": [x], **inputs}, fix_point, nonlinear,
            quantised=(kind, {**window, **shape, "bias_term": bias is not None}),
            compiled=(int8_type(kind), {**window, "nonlinear": nonlinear}),
        )  # fmt: skip

    def depthwise_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A convolution with one kernel per channel; weights int8 (1, H, W, C); else as conv2d."""
        return self.conv2d(name, x, weights, *args, **{**kwargs, "kind": "depthwise-conv2d"})

    def transposed_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """A transposed convolution; weights int8 (O, H, W, I), turned; else as conv2d."""
        return self.conv2d(name, x, weights, *args, **{**kwargs, "kind": "transposed-conv2d"})

    def max_pool(
        self,
        name: str,
        x: Op,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int] = (0, 0, 0, 0),
        ceil: bool = False,
        nonlinear: str = "NONE",
    ) -> Op:
        """A max pool; keeps the fix point. With `ceil` a last window may pass the border."""
        window = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad)}
        given = {} if nonlinear == "NONE" else {"nonlinear": nonlinear}
        mode = {"pad_mode": "CEIL"} if ceil else {}
        return self._layer(
            name, {"input": [x]}, self.point(x), nonlinear,
            quantised=("maxpool2d", {**window, "pad_mode": "FLOOR", "global": False, **mode}),
            compiled=("pool-fix", {**window, "type": "MAX", **mode, **given}),
        )  # fmt: skip

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
        window = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad)}
        counted = {"count_include_pad": True, "count_include_invalid": True}
        mode = {"pad_mode": "FLOOR", "global": False}
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("avgpool2d", window | mode | counted),
            compiled=("pool-fix", {**window, "type": "AVG"}),
        )  # fmt: skip

    def hard_sigmoid(self, name: str, x: Op, fix_point: int) -> Op:
        """The DPU's hard sigmoid, in compiled form with the attributes of AMD's compiler."""
        point = self.point(x)
        attrs = {"hsigmoid_in": point, "shift_hsigmoid": SIXTH_SHIFT + point - fix_point}
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("hard-sigmoid", {}), compiled=("hard-sigmoid-fix", attrs),
        )  # fmt: skip

    def interpolate(
        self, name: str, x: Op, size: Sequence[int], fix_point: int, align_corners: bool
    ) -> Op:
        """Bilinear interpolation to [width, height], which no DPU computes."""
        attrs = {**resized(x, size), "mode": "BILINEAR", "align_corners": align_corners}
        attrs["half_pixel_centers"] = not align_corners
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("resize", attrs), compiled=("resize-fix", attrs),
        )  # fmt: skip

    def concat(self, name: str, inputs: Sequence[Op], axis: int = 3) -> Op:
        """Channels one after the other; all inputs must have one fix point."""
        points = {self.point(op) for op in inputs}
        if len(points) != 1:
            raise DpuError(f"concat {name!r} has inputs with the fix points {sorted(points)}")
        attrs = {"axis": axis}
        return self._layer(
            name, {"input": list(inputs)}, points.pop(),
            quantised=("concat", attrs), compiled=("concat-fix", attrs),
        )  # fmt: skip

    def add(self, name: str, inputs: Sequence[Op], fix_point: int, nonlinear: str = "NONE") -> Op:
        """Sum of the inputs."""
        attrs = {"type": "ADD", "nonlinear": nonlinear}
        return self._layer(
            name, {"input": list(inputs)}, fix_point, nonlinear,
            quantised=("add", {}), compiled=("eltwise-fix", attrs),
        )  # fmt: skip

    def multiply(self, name: str, inputs: Sequence[Op], fix_point: int) -> Op:
        """Product of the inputs; a map may meet one factor for each channel."""
        same = len({tuple(op.get_output_tensor().dims) for op in inputs}) == 1
        attrs = {"type": "MUL", "nonlinear": "NONE"}
        return self._layer(
            name, {"input": list(inputs)}, fix_point,
            quantised=("mul", {}), compiled=("eltwise-fix" if same else "depthwise-fix", attrs),
        )  # fmt: skip

    @abstractmethod
    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """The same values in another shape."""

    @abstractmethod
    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """An op that only picks or moves values, of a type in the form's own words."""

    @abstractmethod
    def output(self, x: Op) -> Op:
        """Make `x` an output of the graph."""

    @abstractmethod
    def finish(self) -> Graph:
        """The graph, ready to run and to write."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        self.finish().serialize(path)

    # -- the form ----------------------------------------------------------------------------

    @abstractmethod
    def point(self, op: Op) -> int:
        """The fix point of the values of an op that this builder returned."""

    @abstractmethod
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
        """Add a layer of one of the two forms, with its activation and rounding; return its end."""

    @abstractmethod
    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        """Add int8 parameters."""

    @abstractmethod
    def _parameter_names(self, name: str) -> tuple[str, str]:
        """Names of the ops of a layer's weights and bias."""

    def _bias(self, name: str, bias: Array | None, shift: int, output_shift: int) -> Array | None:
        """The bias as the form has it, for these left and right shifts of bias and output."""
        return bias


def resized(x: Op, size: Sequence[int]) -> dict[str, Any]:
    """The attribute of a resize to [width, height], of which XIR takes the product's whole part."""
    _, height, width, _ = x.get_output_tensor().dims
    scale = [np.float32(out / given) for out, given in zip(size, (width, height), strict=True)]
    for place, (out, given) in enumerate(zip(size, (width, height), strict=True)):
        if int(scale[place] * np.float32(given)) < out:
            scale[place] = np.nextafter(scale[place], np.float32(np.inf))
    return {"scale": [float(factor) for factor in scale]}


def check_int8(name: str, values: Array) -> None:
    """Refuse parameters that are not int8.

    Raises
    ------
    DpuError
        They are not.
    """
    if values.dtype != np.int8:
        raise DpuError(f"{name!r} has {values.dtype}, not int8")


class CompiledModel(ModelBuilder):
    """A network in compiled form: int8 layers in DPU subgraphs between USER and CPU.

    The files have the structure that AMD's compiler gives (const-fix parameters in REG_0, upload
    and download, subgraphs with devices) but no machine code, and name the emulator as their DPU: a
    board refuses them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
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
        return self.move(f"{x.get_name()}_upload_0", "upload", x, {})

    def _upload_again(self, x: Op, number: int) -> Op:
        """Copy an int8 value to one of several DPU subgraphs."""
        return self.move(f"{x.get_name()}_upload_{number}", "upload", x, {})

    def download(self, x: Op) -> Op:
        """Copy an int8 value from the DPU."""
        return self.move(f"{x.get_name()}_download_0", "download", x, {})

    def to_float(self, name: str, x: Op) -> Op:
        """Dequantise an int8 value on the CPU."""
        attrs = {**QUANTISED, "fix_point": self.point(x)}
        return self.cpu(name, "fix2float", attrs, {"input": [x]})

    def from_float(self, name: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Quantise a real value on the CPU; `attrs` are a fix op's."""
        op = self.cpu(name, "float2fix", attrs, {"input": [x]})
        return self._quantised(op, attrs["fix_point"])

    def cpu(self, name: str, kind: str, attrs: dict[str, Any], inputs: dict[str, list[Op]]) -> Op:
        """Any op, on the CPU."""
        return self.graph.create_op(name, kind, {**attrs, "device": "CPU"}, inputs)

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """The same values in another shape."""
        return self.move(name, "reshape-fix", x, {"shape": list(shape)})

    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """An op that only picks or moves values ("upsample-fix", "reduction_max-fix", ...)."""
        return self._add(name, kind, attrs, {"input": [x]}, self.point(x))

    def output(self, x: Op) -> Op:
        """Copy `x` from the DPU and dequantise it: an output of the graph."""
        return self.to_float(f"{x.get_name()}_float", self.download(x))

    def finish(self) -> Graph:
        """The graph with its subgraphs, ready to run and to write."""
        stretches = separated(partition(self.graph), self.download, self._upload_again)
        root = self.graph.get_root_subgraph()
        root._own, root._children = {}, []
        for device, ops in stretches:
            named = next((op for op in ops if type_of(op).names_subgraph), ops[0])
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
            if op.get_name() in self._parameters:
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

    # -- the form ----------------------------------------------------------------------------

    def point(self, op: Op) -> int:
        """The fix point of the op's tensor."""
        return fix_point_of(op)

    def _parameter_names(self, name: str) -> tuple[str, str]:
        return f"{name}_weights", f"{name}_bias"

    def _bias(self, name: str, bias: Array | None, shift: int, output_shift: int) -> Array | None:
        """Refuse shifts that the DPU does not have; drop bits that are too fine for it."""
        _check_shift(name, "output", output_shift, 0)
        if bias is None:
            return None
        _check_shift(name, "bias", shift, least_bias_shift(output_shift))
        shifted = shifted_bias(bias, -shift)
        if shifted is None:
            raise DpuError(f"{name!r}: the bias has bits that the DPU would drop")
        return shifted

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
        return self._add(name, *compiled, inputs, fix_point)

    def _add(
        self, name: str, type_: str, attrs: dict[str, Any], inputs: dict[str, list[Op]],
        fix_point: int,
    ) -> Op:  # fmt: skip
        op = self.graph.create_op(name, type_, {**attrs, "device": "DPU"}, inputs)
        return self._quantised(op, fix_point)

    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        check_int8(name, values)
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


def _check_shift(name: str, what: str, shift: int, least: int) -> None:
    if not least <= shift <= MAX_SHIFT:
        raise DpuError(f"{name!r}: the {what} shift {shift} is not in {least}..{MAX_SHIFT}")
