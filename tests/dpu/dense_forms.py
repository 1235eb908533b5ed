"""A quantised network whose dense layer has one of the forms that AMD's tools write."""

from __future__ import annotations

import numpy as np

from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op

DENSE_FORMS = ("hwc", "chw", "turned", "conv2d")
"""A matrix after a reshape; after a transpose to PyTorch's order; transposed; a convolution."""


def dense_network(form: str, flip: int = 0) -> Graph:
    """A convolution and a dense layer, the same function in all forms.

    Parameters
    ----------
    flip : bits to change in one weight of the dense layer
    """
    rng = np.random.default_rng(1)
    stem, bias = rng.integers(-90, 91, (4, 1, 1, 2), np.int8), rng.integers(-90, 91, 5, np.int8)
    kernel = rng.integers(-90, 91, (5, 3, 2, 4), np.int8)  # OHWI
    kernel[0, 0, 0, 0] ^= flip
    graph = Graph("net")
    x = graph.create_op("image", "data", {"shape": [1, 3, 2, 2], "data_type": "FLOAT32"})
    inputs = {"input": [_fix(graph, x, 5)], "weights": [_constant(graph, "w", stem, 6)]}
    window = {"kernel": [1, 1], "stride": [1, 1], "pad": [0] * 4, "pad_mode": "FLOOR"}
    x = _fix(graph, graph.create_op("conv", "conv2d", window, inputs), 4)
    bias_op = _constant(graph, "b", bias, 5)
    last = _convolution if form == "conv2d" else _product
    graph.set_attr("return_ops", [last(graph, form, x, kernel, bias_op).get_name()])
    return graph


def _convolution(graph: Graph, _: str, x: Op, kernel: np.ndarray, bias: Op) -> Op:
    window = {"kernel": [2, 3], "stride": [2, 3], "pad": [0] * 4, "pad_mode": "FLOOR"}
    inputs = {"input": [x], "weights": [_constant(graph, "m", kernel, 7)], "bias": [bias]}
    x = _fix(graph, graph.create_op("dense", "conv2d", window, inputs), 2)
    return graph.create_op("flat", "reshape", {"shape": [1, 5]}, {"input": [x]})


def _product(graph: Graph, form: str, x: Op, kernel: np.ndarray, bias: Op) -> Op:
    matrix = kernel.reshape(5, -1)
    if form == "chw":
        matrix = kernel.transpose(0, 3, 1, 2).reshape(5, -1)
        x = graph.create_op("chw", "transpose", {"order": [0, 3, 1, 2]}, {"input": [x]})
    x = graph.create_op("flat", "reshape", {"shape": [1, 24]}, {"input": [x]})
    w = _constant(graph, "m", matrix.T if form == "turned" else matrix, 7)
    flags = {"transpose_a": False, "transpose_b": form != "turned"}
    return _fix(
        graph, graph.create_op("dense", "matmul", flags, {"input": [x, w], "bias": [bias]}), 2
    )


def _constant(graph: Graph, name: str, values: np.ndarray, point: int) -> Op:
    return _fix(graph, graph.create_const_op(name, values * 2.0**-point), point)


def _fix(graph: Graph, op: Op, point: int) -> Op:
    attrs = {"fix_point": point, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"}
    return graph.create_op(f"{op.get_name()}_fix", "fix", attrs, {"input": [op]})
