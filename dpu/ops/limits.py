"""What the ZCU104's DPUCZDX8G B4096 takes: kernels, strides, pads, channels.

Sources: the target's description in AMD's target_factory (Apache-2.0) for the fingerprints of the
ZCU104 and the widths of the instructions' fields for kernels, strides, pads and activations; for
channels and the stride of transposed convolutions the Vitis AI user guide's table of operators
(UG1414), from memory. AMD's compiler puts what is outside on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.registry import type_of

MAX_KERNEL, MAX_STRIDE = 16, 8
"""Of convolutions, width and height."""

MAX_TRANSPOSED_STRIDE = 16
"""Of transposed convolutions (UG1414, from memory)."""

MAX_POOL = 256
"""Kernel and stride of pools and depthwise convolutions."""

MAX_ALU_PADDING = (15, 255, 15, 255)
"""Of pools and depthwise convolutions: left, right, top, bottom."""

MAX_OPERANDS = 4
"""Inputs of one sum or product."""

CHANNEL_PARALLEL = 16
"""Input and output channels that a B4096 takes at once."""

BANK_DEPTH = 2048
"""Words of a weight bank: ``kernel_w * kernel_h * ceil(in_channels / 16)`` must fit."""

MAX_CHANNELS = 256 * CHANNEL_PARALLEL
"""Output channels, and input channels times dilation (UG1414, from memory)."""


def array_limit(op: Any, max_stride: int = MAX_STRIDE) -> str:
    """Why the DPU's array of multipliers cannot take a window; "" where it can."""
    kernel = list(op.get_attr("kernel"))
    stride = list(op.get_attr("stride"))
    return array_size_limit(kernel, stride, max_stride) or _padding_limit(op, kernel)


def array_size_limit(
    kernel: Sequence[int], stride: Sequence[int], max_stride: int = MAX_STRIDE
) -> str:
    """As `array_limit`, for kernel and stride [width, height] alone."""
    return _beyond("kernel", kernel, MAX_KERNEL) or _beyond("stride", stride, max_stride)


def alu_limit(op: Any) -> str:
    """Why the DPU's unit for pools and depthwise convolutions cannot take a window; "" if it can.

    Average pools have the activations of maximum pools too; behind their factor no quantiser was
    seen to write one.
    """
    kernel = list(op.get_attr("kernel"))
    return (
        _beyond("kernel", kernel, MAX_POOL)
        or _beyond("stride", list(op.get_attr("stride")), MAX_POOL)
        or _alu_padding_limit(op, kernel)
    )


def channels_limit(op: Any) -> str:
    """Why the DPU cannot take a convolution's channels; "" where it can."""
    inputs = op.get_input_tensor("input", 0).dims[3]
    outputs = op.get_output_tensor().dims[3]
    dilation = max(attr(op, "dilation", [1, 1]))
    if outputs > MAX_CHANNELS or inputs * dilation > MAX_CHANNELS:
        return f"{inputs} to {outputs} channels, the DPU has up to {MAX_CHANNELS}"
    return ""


def bank_limit(op: Any) -> str:
    """Why a kernel does not fit the DPU's weight banks; "" where it does."""
    kernel, inputs = op.get_attr("kernel"), op.get_input_tensor("input", 0).dims[3]
    outputs, depth = op.get_output_tensor().dims[3], op.get_input_tensor("weights", 0).dims[3]
    words = kernel[0] * kernel[1] * _groups_read(inputs, outputs, max(1, inputs // depth))
    if words <= BANK_DEPTH:
        return ""
    size = f"{kernel[0]}x{kernel[1]}x{inputs}"
    return f"a kernel of {size} takes {words} words of a weight bank, which has {BANK_DEPTH}"


def _groups_read(inputs: int, outputs: int, groups: int) -> int:
    """Channel groups of the input that any group of outputs reads, in a grouped convolution."""
    depth, each, most = inputs // groups, max(1, outputs // groups), 0
    for first in range(0, outputs, CHANNEL_PARALLEL):
        last = min(first + CHANNEL_PARALLEL, outputs) - 1
        begin, end = first // each * depth, (last // each + 1) * depth
        most = max(most, -(-end // CHANNEL_PARALLEL) - begin // CHANNEL_PARALLEL)
    return most


def dense_shape(height: int, width: int, channels: int) -> tuple[int, int, int] | None:
    """Return the shape in which the DPU takes a map that a dense layer sums over.

    That is the map's own where a kernel of its size fits. Else the same values, in the order in
    which they are in memory, as a map of other rows: the convolution over it is the same sum.

    Returns
    -------
    height, width, channels; None where there is no such shape: beyond BANK_DEPTH words for each
    output
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
    return "" if inside else f"{what} {'x'.join(map(str, values))}, the DPU has 1 to {most}"


def _alu_padding_limit(op: Any, kernel: list[int]) -> str:
    pads = type_of(op).padding(op)
    if all(pad <= most for pad, most in zip(pads, MAX_ALU_PADDING, strict=True)):
        return "" if attr(op, "global", False) else _padding_limit(op, kernel)
    return f"padding {pads}, the DPU has up to {list(MAX_ALU_PADDING)}"


def _padding_limit(op: Any, kernel: list[int]) -> str:
    left, right, top, bottom = type_of(op).padding(op)
    dilation = attr(op, "dilation", [1, 1])
    across, down = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    if max(left, right) <= across and max(top, bottom) <= down:
        return ""
    return f"padding {[left, right, top, bottom]}, the DPU pads by less than the kernel"
