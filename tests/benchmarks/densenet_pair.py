"""DenseNet-BC in the two forms that are compared, with random weights.

Convolution - ReLU (batch norms are folded in deployment), k = 12, three blocks of 16 layers,
each a 1x1 bottleneck to 4k channels and a 3x3 convolution to k; transitions halve the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

CLASSES, SIZE = 10, 32


class Writer(Protocol):
    """The interface of a form for the walk over the network."""

    def conv(self, x: Any, weights: np.ndarray, bias: np.ndarray, relu: bool = True) -> Any: ...
    def concat(self, parts: Sequence[Any]) -> Any: ...
    def avg_pool(self, x: Any, size: int) -> Any: ...


def walk(
    writer: Writer, x: Any, growth_rate: int = 12, layers: Sequence[int] = (16, 16, 16)
) -> Any:
    """Write the network after `x` (32 x 32 x 3); return the logits (1, 1, 1, 10)."""
    rng = np.random.default_rng(0)

    def conv(x: Any, inputs: int, outputs: int, kernel: int, relu: bool = True) -> Any:
        limit = max(2, round(127 / (kernel * np.sqrt(inputs))))
        weights = rng.integers(-limit, limit + 1, (outputs, kernel, kernel, inputs), np.int8)
        bias = rng.integers(-128, 128, outputs, np.int8)
        return writer.conv(x, weights, bias, relu)

    channels, size = 2 * growth_rate, SIZE
    x = conv(x, 3, channels, 3)
    for number, count in enumerate(layers):
        for _ in range(count):
            inner = conv(x, channels, 4 * growth_rate, 1)
            x = writer.concat([x, conv(inner, 4 * growth_rate, growth_rate, 3)])
            channels += growth_rate
        if number < len(layers) - 1:
            x, channels = conv(x, channels, channels // 2, 1), channels // 2
            x, size = writer.avg_pool(x, 2), size // 2
    return conv(writer.avg_pool(x, size), channels, CLASSES, 1, relu=False)


class _Int8:
    """Builder of the network as int8 layers of an .xmodel."""

    POINT = 4

    def __init__(self) -> None:
        self.model, self._count = CompiledModel("densenet_bc"), 0

    def _name(self) -> str:
        self._count += 1
        return f"op{self._count}"

    def conv(self, x: Op, weights: np.ndarray, bias: np.ndarray, relu: bool = True) -> Op:
        pad, kind = [weights.shape[1] // 2] * 4, "RELU" if relu else "NONE"
        return self.model.conv2d(
            self._name(), x, weights, 7, bias, 7, self.POINT, pad=pad, nonlinear=kind
        )

    def concat(self, parts: Sequence[Op]) -> Op:
        return self.model.concat(self._name(), parts)

    def avg_pool(self, x: Op, size: int) -> Op:
        return self.model.avg_pool(self._name(), x, [size] * 2, [size] * 2, self.POINT)


def int8_graph() -> Graph:
    """The network as a compiled-form graph for the engines."""
    writer = _Int8()
    x = writer.model.input("image", (1, SIZE, SIZE, 3), writer.POINT)
    writer.model.output(walk(writer, x))
    return writer.model.finish()


class _Float32:
    """Builder of the network as plain float32 ONNX nodes, NCHW, as exporters write them."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def _node(self, kind: str, inputs: Sequence[str], **attrs: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        return name

    def _constant(self, values: np.ndarray) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, x: str, weights: np.ndarray, bias: np.ndarray, relu: bool = True) -> str:
        kernel = weights.shape[1]
        constants = [
            self._constant(weights.transpose(0, 3, 1, 2) / 128),
            self._constant(bias / 128),
        ]
        attrs = {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4}
        y = self._node("Conv", [x, *constants], **attrs)
        return self._node("Relu", [y]) if relu else y

    def concat(self, parts: Sequence[str]) -> str:
        return self._node("Concat", parts, axis=1)

    def avg_pool(self, x: str, size: int) -> str:
        return self._node("AveragePool", [x], kernel_shape=[size] * 2, strides=[size] * 2)


def float32_model() -> bytes:
    """The same network as a plain float32 ONNX model with a free batch size."""
    writer = _Float32()
    y = walk(writer, "image")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", CLASSES, 1, 1])
    graph = helper.make_graph(writer.nodes, "densenet", [image], [logits], writer.weights)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
