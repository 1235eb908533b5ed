"""What the ZCU104's DPUCZDX8G B4096 takes: kernels, strides, pads, channels, fused activations.

Sources: the target's description in AMD's target_factory (Apache-2.0) for the fingerprints of the
ZCU104 and the widths of the instructions' fields for kernels, strides, pads and activations; for
channels and the stride of transposed convolutions the Vitis AI user guide's table of operators
(UG1414), from memory. AMD's compiler puts what is outside on the CPU.
"""

from __future__ import annotations

from tutelage.dpu.ops import cpu_ops
from tutelage.dpu.ops.sliding_window import transposed_window_of, window_of
from tutelage.dpu.xmodel.graph import Op

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

FUSED = {
    "conv2d": ("RELU", "RELU6", "LEAKYRELU"),
    "transposed-conv2d": ("RELU", "RELU6", "LEAKYRELU"),
    "depthwise-conv2d": ("RELU", "RELU6"),
    "transposed-depthwise-conv2d": ("RELU", "RELU6"),
    "maxpool2d": ("RELU", "RELU6"),
    "add": ("RELU",),
}
"""The activations that an op has at its end, by op type. The target gives average pools the same as
maximum pools; behind their factor no quantiser was seen to write one."""

CHANNEL_PARALLEL = 16
"""Input and output channels that a B4096 takes at once."""

BANK_DEPTH = 2048
"""Words of a weight bank: ``kernel_w * kernel_h * ceil(in_channels / 16)`` must fit."""

MAX_CHANNELS = 256 * CHANNEL_PARALLEL
"""Output channels, and input channels times dilation (UG1414, from memory)."""


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
    if kind in ("maxpool2d", "avgpool2d", "depthwise-conv2d"):
        return (
            _beyond("kernel", kernel, MAX_POOL)
            or _beyond("stride", stride, MAX_POOL)
            or _alu_padding(op)
            or ("" if kind.endswith("pool2d") else _channels(op, kernel))
        )
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


def _alu_padding(op: Op) -> str:
    pads = padding(op)
    if all(pad <= most for pad, most in zip(pads, MAX_ALU_PADDING, strict=True)):
        return "" if cpu_ops.attr(op, "global", False) else _padding(op, op.get_attr("kernel"))
    return f"padding {pads}, the DPU has up to {list(MAX_ALU_PADDING)}"


def padding(op: Op) -> list[int]:
    """[left, right, top, bottom] that an op's window needs, as `pad_mode` makes them."""
    size = op.get_input_tensor("input", 0).dims[1:3]
    if op.get_type().startswith("transposed"):
        transposed_window_of(op.get_attrs(), *size)  # refuses pads beyond the kernel
        return list(cpu_ops.attr(op, "pad", None) or [0, 0, 0, 0])
    window = window_of(op.get_attrs(), *size)
    return [window.pad_left, window.pad_right, window.pad_top, window.pad_bottom]


def _padding(op: Op, kernel: list[int]) -> str:
    left, right, top, bottom = padding(op)
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
