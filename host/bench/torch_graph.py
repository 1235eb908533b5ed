"""Conversion of a float32 ONNX file of host/export/onnx_qdq.py to a torch.fx module."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import fx, nn


def read_onnx(path: Path) -> fx.GraphModule:
    """Return the network of a file: from images (N, C, H, W), float32, to logits (N, classes).

    Raises
    ------
    ValueError
        A node has a type that `tutelage.host.export.onnx_qdq.to_onnx` does not write in its float32
        form.
    """
    return _Builder(onnx.load(str(path)).graph).build()


class _Builder:
    """Builder of the fx graph."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.constants = {c.name: numpy_helper.to_array(c).copy() for c in source.initializer}
        self.layers = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}

    def build(self) -> fx.GraphModule:
        """Return the whole network."""
        emitters: dict[str, Callable[[Any, dict[str, Any]], fx.Node]] = {
            "Conv": self._conv, "Relu": self._relu, "Clip": self._clip, "LeakyRelu": self._leaky,
            "MaxPool": self._max_pool, "AveragePool": self._average_pool, "Mul": self._mul,
            "Concat": self._concat, "Add": self._add, "Flatten": self._flatten,
            "Identity": self._identity,
        }  # fmt: skip
        name = self.source.input[0].name
        self.values[name] = self.graph.placeholder(name)
        for node in self.source.node:
            if node.op_type not in emitters:
                raise ValueError(f"node type {node.op_type} is not supported")
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            self.values[node.output[0]] = emitters[node.op_type](node, attrs)
        self.graph.output(self.values[self.source.output[0].name])
        return fx.GraphModule(self.layers, self.graph)

    def _layer(self, layer: nn.Module, x: fx.Node) -> fx.Node:
        name = f"layer{len(list(self.layers.children()))}"
        self.layers.add_module(name, layer)
        return self.graph.call_module(name, (x,))

    def _input(self, node: Any, index: int = 0) -> fx.Node:
        return self.values[node.input[index]]

    def _scalar(self, node: Any, index: int) -> float:
        return float(self.constants[node.input[index]])

    def _padded(self, x: fx.Node, pads: list[int], value: float = 0.0) -> tuple[fx.Node, Any]:
        """Return the input and the padding of a layer; pad before it if the borders are uneven."""
        top, left, bottom, right = pads
        if (top, left) == (bottom, right):
            return x, (top, left)
        border = [left, right, top, bottom]
        return self.graph.call_function(F.pad, (x, border, "constant", value)), (0, 0)

    def _conv(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        weight = torch.from_numpy(self.constants[node.input[1]])
        bias = self.constants[node.input[2]] if len(node.input) > 2 else None
        x, padding = self._padded(self._input(node), attrs["pads"])
        layer = nn.Conv2d(
            weight.shape[1] * attrs["group"], weight.shape[0], tuple(attrs["kernel_shape"]),
            tuple(attrs["strides"]), padding, tuple(attrs["dilations"]), attrs["group"],
            bias=bias is not None,
        )  # fmt: skip
        layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(torch.from_numpy(np.asarray(bias, np.float32)))
        return self._layer(layer, x)

    def _max_pool(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        x, padding = self._padded(self._input(node), attrs["pads"], -torch.inf)
        kernel, stride = tuple(attrs["kernel_shape"]), tuple(attrs["strides"])
        return self._layer(nn.MaxPool2d(kernel, stride, padding), x)

    def _average_pool(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        x, padding = self._padded(self._input(node), attrs["pads"])
        kernel, stride = tuple(attrs["kernel_shape"]), tuple(attrs["strides"])
        return self._layer(nn.AvgPool2d(kernel, stride, padding, count_include_pad=True), x)

    def _relu(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        return self._layer(nn.ReLU(), self._input(node))

    def _clip(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        limits = self._scalar(node, 1), self._scalar(node, 2)
        return self._layer(nn.Hardtanh(*limits), self._input(node))

    def _leaky(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        return self._layer(nn.LeakyReLU(attrs["alpha"]), self._input(node))

    def _mul(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        return self.graph.call_function(operator.mul, (self._input(node), self._scalar(node, 1)))

    def _add(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        pair = self._input(node), self._input(node, 1)
        return self.graph.call_function(operator.add, pair)

    def _concat(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        parts = [self.values[name] for name in node.input]
        return self.graph.call_function(torch.cat, (parts, attrs["axis"]))

    def _flatten(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        return self.graph.call_function(torch.flatten, (self._input(node), attrs["axis"]))

    def _identity(self, node: Any, attrs: dict[str, Any]) -> fx.Node:
        return self._input(node)
