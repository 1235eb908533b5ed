"""PyTorch networks and DenseNets as operations for `tutelage.dpu.predict.latency`.

Only shapes matter, not weights or thresholds. `network_operations` takes any network that the
quantiser can trace, and needs a few seconds, since the compiler decides what runs on the DPU;
`densenet_operations` derives a DenseNet's operations from its hyper-parameters within a
millisecond, for large searches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from tutelage.dpu.predict.latency import operations_of_graph
from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.predict.prediction import operations_in
from tutelage.host.networks import NetworkError, create_with
from tutelage.host.networks.densenet import STEMS
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.quantise.walker import InputShape


def network_operations(network: nn.Module, input_shape: InputShape) -> list[Operation]:
    """Return the operations of a network for one image.

    They are those of its quantised graph; operations beyond the DPU's limits are the CPU's.

    Parameters
    ----------
    network : in float
    input_shape : (C, H, W) of an image, or one shape for each input

    Raises
    ------
    UnsupportedOp
        The network contains an operation that the quantiser does not support.
    """
    name = type(network).__name__
    operations = operations_of_graph(to_quantised(Student(network, input_shape), name))
    return [replace(o, name=o.name.removeprefix(f"{name}__")) for o in operations]


def create_operations(name: str, shape: str) -> list[Operation]:
    """Return the operations of the network with a name as for `tutelage.host.networks.create`.

    A user's function may also return operations, or a `Sketch` of them, instead of a network.

    Parameters
    ----------
    name : a preset, "module:function" or "file.py:function"
    shape : of the input, such as "3x32x32" (channels, height, width); a function with a parameter
        in_channels receives the channels

    Raises
    ------
    NetworkError
        The name is unknown, or the shape is invalid.
    UnsupportedOp
        The network contains an operation that the quantiser does not support.
    DpuError
        The function returns neither a network nor operations.
    """
    size = read_shape(shape)
    made: Any = create_with(name, {}, {"in_channels": size[0]})
    if isinstance(made, nn.Module):
        return network_operations(made, size)
    return operations_in(made, f"{name} gives")


def read_shape(text: str) -> tuple[int, int, int]:
    """Parse (C, H, W) from a text such as "3x224x224"; raise NetworkError if it is malformed."""
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){2}", text):
        raise NetworkError(f"input {text!r} is not CxHxW, such as 3x224x224")
    channels, height, width = map(int, text.split("x"))
    return channels, height, width


def densenet_operations(
    input_shape: tuple[int, int, int],
    growth_rate: int = 12,
    block_config: Sequence[int] = (16, 16, 16),
    compression: float = 0.5,
    bottleneck: int = 4,
    stem: str = "small",
    num_classes: int = 10,
    init_features: int = 0,
) -> list[Operation]:
    """Return the operations of a `tutelage.host.networks.densenet.DenseNet`.

    Except for their names they equal those of `network_operations`, which a test verifies.

    Parameters
    ----------
    input_shape : (C, H, W) of the images
    growth_rate, block_config, compression, bottleneck, stem, num_classes, init_features : the
        hyper-parameters of `DenseNet`
    """
    channels, height, width = input_shape
    kernel, stride, pool = STEMS[stem]
    net = Sketch(height, width, channels)
    features = init_features or 2 * growth_rate
    x = net.conv(0, features, kernel, stride, kernel // 2)
    if pool:
        x = net.pool(x, 3, 2, 1) if kernel == 7 else net.pool(x, 2, 2, "valid")
    for index, depth in enumerate(block_config, start=1):
        for _ in range(depth):
            new = net.conv(net.conv(x, bottleneck * growth_rate), growth_rate, 3, 1, 1)
            x = net.concat(x, new)
        if index < len(block_config):
            x = net.conv(x, int(net.shape(x)[2] * compression))
            x = net.pool(x, 2, 2, "valid", kind="avgpool2d")
    net.dense(net.global_pool(x), num_classes)
    return net.operations
