"""Builders of networks, layer by layer, in quantised or compiled form.

`ModelBuilder` has a method for each kind of layer. The differences of the forms are in its two
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
"""Numbers of the DPU's registers, as assigned by AMD's compiler (measured on its files)."""


Form = tuple[str, dict[str, Any]]
"""Op type and attributes of a layer in one form of file."""


class ModelBuilder(ABC):
    """A network under construction.

    Every method adds a layer and returns the op with its int8 values. Sizes are [width,
    height], pads [left, right, top, bottom], as in XIR. Weights and biases are int8 integers.
    """

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)

    @abstractmethod
    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """Add an input (1, H, W, C) of int8 values."""

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
        """Add a convolution; weights int8 (O, H, W, I), bias int8 (O,) or None.

        `names` are the names of the ops of weights and bias.

        Raises
        ------
        DpuError
            Parameters are not int8. In compiled form: the DPU does not support a shift, or the
            bias would lose bits.
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
        """Add a depthwise convolution; weights int8 (1, H, W, C), otherwise as for `conv2d`."""
        return self.conv2d(name, x, weights, *args, **{**kwargs, "kind": "depthwise-conv2d"})

    def transposed_conv2d(self, name: str, x: Op, weights: Array, *args: Any, **kwargs: Any) -> Op:
        """Add a transposed convolution; weights int8 (O, H, W, I), flipped; see `conv2d`."""
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
        """Add a max pool, which keeps the fix point; with `ceil` a last partial window counts."""
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
        """Add an average pool with the DPU's reciprocal."""
        window = {"kernel": list(kernel), "stride": list(stride), "pad": list(pad)}
        counted = {"count_include_pad": True, "count_include_invalid": True}
        mode = {"pad_mode": "FLOOR", "global": False}
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("avgpool2d", window | mode | counted),
            compiled=("pool-fix", {**window, "type": "AVG"}),
        )  # fmt: skip

    def hard_sigmoid(self, name: str, x: Op, fix_point: int) -> Op:
        """Add the DPU's hard sigmoid, in compiled form with the attributes of AMD's compiler."""
        point = self.point(x)
        attrs = {"hsigmoid_in": point, "shift_hsigmoid": SIXTH_SHIFT + point - fix_point}
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("hard-sigmoid", {}), compiled=("hard-sigmoid-fix", attrs),
        )  # fmt: skip

    def interpolate(
        self, name: str, x: Op, size: Sequence[int], fix_point: int, align_corners: bool
    ) -> Op:
        """Add bilinear interpolation to [width, height], which no DPU computes."""
        attrs = {**resized(x, size), "mode": "BILINEAR", "align_corners": align_corners}
        attrs["half_pixel_centers"] = not align_corners
        return self._layer(
            name, {"input": [x]}, fix_point,
            quantised=("resize", attrs), compiled=("resize-fix", attrs),
        )  # fmt: skip

    def concat(self, name: str, inputs: Sequence[Op], axis: int = 3) -> Op:
        """Add a concatenation along `axis`.

        Raises
        ------
        DpuError
            The inputs have different fix points.
        """
        points = {self.point(op) for op in inputs}
        if len(points) != 1:
            raise DpuError(f"concat {name!r} has inputs with the fix points {sorted(points)}")
        attrs = {"axis": axis}
        return self._layer(
            name, {"input": list(inputs)}, points.pop(),
            quantised=("concat", attrs), compiled=("concat-fix", attrs),
        )  # fmt: skip

    def add(self, name: str, inputs: Sequence[Op], fix_point: int, nonlinear: str = "NONE") -> Op:
        """Add a sum of the inputs."""
        attrs = {"type": "ADD", "nonlinear": nonlinear}
        return self._layer(
            name, {"input": list(inputs)}, fix_point, nonlinear,
            quantised=("add", {}), compiled=("eltwise-fix", attrs),
        )  # fmt: skip

    def multiply(self, name: str, inputs: Sequence[Op], fix_point: int) -> Op:
        """Add a product of the inputs, of equal shape or a map and one factor per channel."""
        same = len({tuple(op.get_output_tensor().dims) for op in inputs}) == 1
        attrs = {"type": "MUL", "nonlinear": "NONE"}
        return self._layer(
            name, {"input": list(inputs)}, fix_point,
            quantised=("mul", {}), compiled=("eltwise-fix" if same else "depthwise-fix", attrs),
        )  # fmt: skip

    @abstractmethod
    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """Add a reshape."""

    @abstractmethod
    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Add an op that only selects or moves values; `kind` is an op type of the form."""

    @abstractmethod
    def output(self, x: Op) -> Op:
        """Make `x` an output of the graph."""

    @abstractmethod
    def finish(self) -> Graph:
        """Return the graph, ready to run and to write."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Finish the graph and write it to a file; raises XmodelError if it cannot be written."""
        self.finish().serialize(path)

    # -- the form ----------------------------------------------------------------------------

    @abstractmethod
    def point(self, op: Op) -> int:
        """Return the fix point of the values of an op that this builder returned."""

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
        """Add a layer in one of the two forms, with activation and rounding; return its last op."""

    @abstractmethod
    def _constant(self, name: str, values: Array, fix_point: int) -> Op:
        """Add int8 parameters."""

    @abstractmethod
    def _parameter_names(self, name: str) -> tuple[str, str]:
        """Return the names of the ops of a layer's weights and bias."""

    def _bias(self, name: str, bias: Array | None, shift: int, output_shift: int) -> Array | None:
        """Return the bias in this form; `shift` is its left shift to the accumulator."""
        return bias


def resized(x: Op, size: Sequence[int]) -> dict[str, Any]:
    """Return the attribute `scale` of a resize to [width, height], since XIR truncates products."""
    _, height, width, _ = x.get_output_tensor().dims
    scale = [np.float32(out / given) for out, given in zip(size, (width, height), strict=True)]
    for place, (out, given) in enumerate(zip(size, (width, height), strict=True)):
        if int(scale[place] * np.float32(given)) < out:
            scale[place] = np.nextafter(scale[place], np.float32(np.inf))
    return {"scale": [float(factor) for factor in scale]}


def check_int8(name: str, values: Array) -> None:
    """Verify that parameters are int8.

    Raises
    ------
    DpuError
        They are not int8.
    """
    if values.dtype != np.int8:
        raise DpuError(f"{name!r} has {values.dtype}, expected int8")


class CompiledModel(ModelBuilder):
    """A network in compiled form: int8 layers in DPU subgraphs between USER and CPU.

    The files have the structure of AMD's compiled files (const-fix parameters in REG_0, upload
    and download, subgraphs with devices) but no machine code, and name the emulator as their DPU,
    so a board rejects them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._parameters: dict[str, bytes] = {}  # by the name of the const-fix op

    def input(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """Add an int8 input (1, H, W, C), copied to the DPU."""
        return self.upload(self.data(name, dims, fix_point))

    def data(self, name: str, dims: Sequence[int], fix_point: int) -> Op:
        """Add an int8 input (1, H, W, C), provided by the user."""
        attrs = {"shape": list(dims), "data_type": "XINT8", "device": "USER"}
        return self._quantised(self.graph.create_op(name, "data-fix", attrs), fix_point)

    def upload(self, x: Op) -> Op:
        """Add a copy of an int8 value to the DPU."""
        return self.move(f"{x.get_name()}_upload_0", "upload", x, {})

    def _upload_again(self, x: Op, number: int) -> Op:
        """Add a copy of an int8 value to one of several DPU subgraphs."""
        return self.move(f"{x.get_name()}_upload_{number}", "upload", x, {})

    def download(self, x: Op) -> Op:
        """Add a copy of an int8 value from the DPU."""
        return self.move(f"{x.get_name()}_download_0", "download", x, {})

    def to_float(self, name: str, x: Op) -> Op:
        """Add a dequantisation of an int8 value on the CPU."""
        attrs = {**QUANTISED, "fix_point": self.point(x)}
        return self.cpu(name, "fix2float", attrs, {"input": [x]})

    def from_float(self, name: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Add a quantisation of a real value on the CPU; `attrs` are those of a fix op."""
        op = self.cpu(name, "float2fix", attrs, {"input": [x]})
        return self._quantised(op, attrs["fix_point"])

    def cpu(self, name: str, kind: str, attrs: dict[str, Any], inputs: dict[str, list[Op]]) -> Op:
        """Add any op on the CPU."""
        return self.graph.create_op(name, kind, {**attrs, "device": "CPU"}, inputs)

    def reshape(self, name: str, x: Op, shape: Sequence[int]) -> Op:
        """Add a reshape."""
        return self.move(name, "reshape-fix", x, {"shape": list(shape)})

    def move(self, name: str, kind: str, x: Op, attrs: dict[str, Any]) -> Op:
        """Add an op that only selects or moves values ("upsample-fix", "pad-fix", ...)."""
        return self._add(name, kind, attrs, {"input": [x]}, self.point(x))

    def output(self, x: Op) -> Op:
        """Make `x` an output of the graph: copy it from the DPU and dequantise it."""
        return self.to_float(f"{x.get_name()}_float", self.download(x))

    def finish(self) -> Graph:
        """Return the graph with its subgraphs, ready to run and to write."""
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
        """Allocate the parameters of a DPU subgraph and set its attributes."""
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
        """Return the fix point of the op's tensor."""
        return fix_point_of(op)

    def _parameter_names(self, name: str) -> tuple[str, str]:
        return f"{name}_weights", f"{name}_bias"

    def _bias(self, name: str, bias: Array | None, shift: int, output_shift: int) -> Array | None:
        """Raise DpuError for unsupported shifts; drop zero bits that are too fine for the DPU."""
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
        """Return `name`, numbered if in use: layers that share parameters have separate ops."""
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
        raise DpuError(f"{name!r}: the {what} shift is {shift}; it must be {least} to {MAX_SHIFT}")
