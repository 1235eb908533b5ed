"""What the array of a DPUCZDX8G B4096 can take: kernels, strides, pads, channels.

Source: the table of operators in AMD's Vitis AI user guide (UG1414) and the DPU's product guide
(PG338) for DPUCZDX8G_ISA1_B4096, from memory of both; no compiler was at hand to confirm them.
AMD's compiler puts what lies outside on the CPU.
"""

from __future__ import annotations

from dpu import cpu_ops
from dpu.xir import Op

MAX_KERNEL, MAX_STRIDE = 16, 8
"""Of convolutions, width and height."""

MAX_TRANSPOSED_STRIDE = 16
MAX_POOL = 256
"""Kernel and stride of pools; AMD compiled a max pool of 100x1 (measured, PointPillars)."""

CHANNEL_PARALLEL = 16
"""Input and output channels that a B4096 takes at once."""

BANK_DEPTH = 2048
"""Words of a weight bank: ``kernel_w * kernel_h * ceil(in_channels / 16)`` must fit."""

MAX_CHANNELS = 256 * CHANNEL_PARALLEL
"""Output channels, and input channels times dilation."""


def window_limit(op: Op) -> str:
    """Why the DPU cannot compute a convolution or a pool of this shape; "" where it can.

    Parameters
    ----------
    op : any op of a quantised graph; those without a window have no limit here
    """
    kind = op.get_type()
    if not op.has_attr("kernel"):
        return ""
    kernel, stride = list(op.get_attr("kernel")), list(op.get_attr("stride"))
    if kind in ("maxpool2d", "avgpool2d"):
        return _beyond("kernel", kernel, MAX_POOL) or _beyond("stride", stride, MAX_POOL)
    most = MAX_TRANSPOSED_STRIDE if kind.startswith("transposed") else MAX_STRIDE
    return (
        _beyond("kernel", kernel, MAX_KERNEL)
        or _beyond("stride", stride, most)
        or _padding(op, kernel)
        or _channels(op, kernel)
    )


def _beyond(what: str, values: list[int], most: int) -> str:
    inside = all(1 <= value <= most for value in values)
    return "" if inside else f"{what} {'x'.join(map(str, values))}, the DPU has 1 to {most}"


def _padding(op: Op, kernel: list[int]) -> str:
    left, right, top, bottom = cpu_ops.attr(op, "pad", [0, 0, 0, 0])
    dilation = cpu_ops.attr(op, "dilation", [1, 1])
    across, down = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
    if max(left, right) <= across and max(top, bottom) <= down:
        return ""
    return f"padding {[left, right, top, bottom]}, the DPU pads by less than the kernel"


def _channels(op: Op, kernel: list[int]) -> str:
    inputs = op.get_input_tensor("input", 0).dims[3]
    outputs = op.get_output_tensor().dims[3]
    dilation = max(cpu_ops.attr(op, "dilation", [1, 1]))
    if outputs > MAX_CHANNELS or inputs * dilation > MAX_CHANNELS:
        return f"{inputs} to {outputs} channels, the DPU has up to {MAX_CHANNELS}"
    words = kernel[0] * kernel[1] * -(-inputs // CHANNEL_PARALLEL)
    if op.get_type() == "conv2d" and words > BANK_DEPTH:
        size = f"{kernel[0]}x{kernel[1]}x{inputs}"
        return f"a kernel of {size} takes {words} words of a weight bank, which has {BANK_DEPTH}"
    return ""
