"""PyTorch networks and DenseNets as operations for `tutelage.dpu.predict.latency`.

No weights, no quantisation: shapes are enough. `network_operations` takes what the quantiser can
trace, in about a second; `densenet_operations` writes a DenseNet down from its hyper-parameters
within a millisecond, for searches over many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.predict.prediction import operations_in
from tutelage.host.networks import PRESETS, NetworkError, create
from tutelage.host.networks.densenet import STEMS
from tutelage.host.quantise.trace import trace
from tutelage.host.quantise.walker import InputShape


def network_operations(network: nn.Module, input_shape: InputShape) -> list[Operation]:
    """Return the operations of a network for one image of [C, H, W], or one for each input.

    Raises
    ------
    UnsupportedOp
        It has an operation that the DPU cannot take.
    """
    traced = trace(network, input_shape)
    places = {name: place for place, name in enumerate(traced)}
    return [
        layer.operation(tuple(places[source] for source in layer.inputs))
        for layer in traced.values()
    ]


def create_operations(name: str, shape: str) -> list[Operation]:
    """Return the operations of a network by the name that `tutelage.host.networks.create` takes.

    A function of that name may also return operations, or a `Sketch` of them.

    Parameters
    ----------
    shape : of its input, such as "3x32x32" (channels, height, width); a preset is made for so
        many channels

    Raises
    ------
    NetworkError, UnsupportedOp, DpuError
        An unknown name, a shape that is not one, an operation that the DPU cannot take, or the
        function returns something else.
    """
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){2}", shape):
        raise NetworkError(f"input {shape!r} is no CxHxW, such as 3x224x224")
    channels, height, width = map(int, shape.split("x"))
    made: Any = create(name, **({"in_channels": channels} if name in PRESETS else {}))
    if isinstance(made, nn.Module):
        return network_operations(made, (channels, height, width))
    return operations_in(made, f"{name} gives")


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
