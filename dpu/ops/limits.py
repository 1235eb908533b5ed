"""Limits of the ZCU104's DPUCZDX8G B4096: kernels, strides, pads and channels.

Sources: for kernels, strides, pads and activations the target description in AMD's target_factory
(Apache-2.0) for the fingerprints of the ZCU104, and the widths of the instructions' fields; for
channels and the stride of transposed convolutions the Vitis AI user guide's table of operators
(UG1414), from memory. AMD's compiler puts ops beyond these limits on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.registry import type_of

MAX_KERNEL, MAX_STRIDE = 16, 8
"""Largest kernel and stride of a convolution, in width and height."""

MAX_TRANSPOSED_STRIDE = 16
"""Largest stride of a transposed convolution (UG1414, from memory)."""

MAX_POOL = 256
"""Largest kernel and stride of pools and depthwise convolutions."""

MAX_ALU_PADDING = (15, 255, 15, 255)
"""Largest padding of pools and depthwise convolutions: left, right, top, bottom."""

MAX_OPERANDS = 4
"""Most inputs of a sum or product."""

CHANNEL_PARALLEL = 16
"""Input channels, and output channels, that a B4096 processes in parallel."""

BANK_DEPTH = 2048
"""Words of a weight bank: ``kernel_w * kernel_h * ceil(in_channels / 16)`` must fit."""

MAX_CHANNELS = 256 * CHANNEL_PARALLEL
"""Most output channels, and input channels times dilation (UG1414, from memory)."""


def array_limit(op: Any, max_stride: int = MAX_STRIDE) -> str:
    """Return why the DPU's multiplier array does not support a window; "" if it does."""
    kernel = list(op.get_attr("kernel"))
    stride = list(op.get_attr("stride"))
    return array_size_limit(kernel, stride, max_stride) or _padding_limit(op, kernel)


def array_size_limit(
    kernel: Sequence[int], stride: Sequence[int], max_stride: int = MAX_STRIDE
) -> str:
    """Return as `array_limit`, considering only kernel and stride, [width, height] each."""
    return _beyond("kernel", kernel, MAX_KERNEL) or _beyond("stride", stride, max_stride)


def alu_limit(op: Any) -> str:
    """Return why the unit for pools and depthwise convolutions cannot run a window, else "".

    Average pools support the activations of maximum pools too, but no quantiser is known to write
    an activation after their factor.
    """
    kernel = list(op.get_attr("kernel"))
    return (
        _beyond("kernel", kernel, MAX_POOL)
        or _beyond("stride", list(op.get_attr("stride")), MAX_POOL)
        or _alu_padding_limit(op, kernel)
    )


def channels_limit(op: Any) -> str:
    """Return why the DPU does not support a convolution's channels; "" if it does."""
    inputs = op.get_input_tensor("input", 0).dims[3]
    outputs = op.get_output_tensor().dims[3]
    dilation = max(attr(op, "dilation", [1, 1]))
    if outputs > MAX_CHANNELS or inputs * dilation > MAX_CHANNELS:
        return f"{inputs} to {outputs} channels; the DPU supports up to {MAX_CHANNELS}"
    return ""


def bank_limit(op: Any) -> str:
    """Return why a kernel does not fit into the DPU's weight banks; "" if it does."""
    kernel, inputs = op.get_attr("kernel"), op.get_input_tensor("input", 0).dims[3]
    outputs, depth = op.get_output_tensor().dims[3], op.get_input_tensor("weights", 0).dims[3]
    words = kernel[0] * kernel[1] * _groups_read(inputs, outputs, max(1, inputs // depth))
    if words <= BANK_DEPTH:
        return ""
    size = f"{kernel[0]}x{kernel[1]}x{inputs}"
    return f"kernel {size} takes {words} words of a weight bank, which has {BANK_DEPTH}"


def _groups_read(inputs: int, outputs: int, groups: int) -> int:
    """Return the most input channel groups that a group of outputs of a convolution reads."""
    depth, each, most = inputs // groups, max(1, outputs // groups), 0
    for first in range(0, outputs, CHANNEL_PARALLEL):
        last = min(first + CHANNEL_PARALLEL, outputs) - 1
        begin, end = first // each * depth, (last // each + 1) * depth
        most = max(most, -(-end // CHANNEL_PARALLEL) - begin // CHANNEL_PARALLEL)
    return most


def dense_shape(height: int, width: int, channels: int) -> tuple[int, int, int] | None:
    """Return the shape that a map gets when a dense layer over it becomes a convolution.

    It is the map's own shape if a kernel of that size fits. Otherwise the values, in memory order,
    are reshaped to a map with other rows: the convolution over it computes the same sum.

    Returns
    -------
    height, width, channels; None if every shape needs more than BANK_DEPTH words per output
    """
    own, size = (height, width, channels), height * width * channels
    shapes = [
        (h, w, size // (h * w))
        for h in range(1, MAX_KERNEL + 1)
        for w in range(1, MAX_KERNEL + 1)
        if size % (h * w) == 0
    ]
    fitting = [
        shape for shape in (own, *shapes)
        if _kernel_words(shape) <= BANK_DEPTH and shape[2] <= MAX_CHANNELS
        and max(shape[:2]) <= MAX_KERNEL
    ]  # fmt: skip
    if own in fitting:
        return own
    return min(fitting, key=lambda shape: (_kernel_words(shape), shape[0] * shape[1]), default=None)


def _kernel_words(shape: tuple[int, int, int]) -> int:
    return shape[0] * shape[1] * -(-shape[2] // CHANNEL_PARALLEL)


def _beyond(what: str, values: Sequence[int], most: int) -> str:
    inside = all(1 <= value <= most for value in values)
    return "" if inside else f"{what} {'x'.join(map(str, values))}; the DPU supports 1 to {most}"


def _alu_padding_limit(op: Any, kernel: list[int]) -> str:
    pads = type_of(op).padding(op)
    if all(pad <= most for pad, most in zip(pads, MAX_ALU_PADDING, strict=True)):
        return "" if attr(op, "global", False) else _padding_limit(op, kernel)
    return f"padding {pads}; the DPU supports up to {list(MAX_ALU_PADDING)}"


def _padding_limit(op: Any, kernel: list[int]) -> str:
    left, right, top, bottom = type_of(op).padding(op)
    dilation = attr(op, "dilation", [1, 1])
    across, down = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    if max(left, right) <= across and max(top, bottom) <= down:
        return ""
    return f"padding {[left, right, top, bottom]} must be smaller than the kernel"
