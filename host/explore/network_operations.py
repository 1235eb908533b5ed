"""PyTorch networks and DenseNets as operations for `tutelage.dpu.predict.latency`.

Weights and thresholds do not matter: shapes are enough. `network_operations` takes what the
quantiser can trace, in a few seconds, and asks the compiler what the DPU takes;
`densenet_operations` writes a DenseNet down from its hyper-parameters within a millisecond, for
searches over many.
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
    """Return the operations of a network for one image of [C, H, W], or one for each input.

    They are those of its quantised file: what is beyond the DPU's limits is the CPU's.

    Raises
    ------
    UnsupportedOp
        It has an operation that the quantiser cannot take.
    """
    name = type(network).__name__
    operations = operations_of_graph(to_quantised(Student(network, input_shape), name))
    return [replace(o, name=o.name.removeprefix(f"{name}__")) for o in operations]


def create_operations(name: str, shape: str) -> list[Operation]:
    """Return the operations of a network by the name that `tutelage.host.networks.create` takes.

    A function of that name may also return operations, or a `Sketch` of them.

    Parameters
    ----------
    shape : of its input, such as "3x32x32" (channels, height, width); a function that takes
        in_channels gets so many

    Raises
    ------
    NetworkError, UnsupportedOp, DpuError
        An unknown name, a shape that is not one, an operation that the DPU cannot take, or the
        function returns something else.
    """
    size = read_shape(shape)
    made: Any = create_with(name, {}, {"in_channels": size[0]})
    if isinstance(made, nn.Module):
        return network_operations(made, size)
    return operations_in(made, f"{name} gives")


def read_shape(text: str) -> tuple[int, int, int]:
    """Return (C, H, W) of a text such as "3x224x224"; raises NetworkError for another."""
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

    The same as `network_operations` gives for it, up to names; the tests verify it. The other
    parameters are its own hyper-parameters.

    Parameters
    ----------
    input_shape : [C, H, W] of the images
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
