"""How many cycles the DPU's array needs at least: lower bounds that follow from its shape.

Counted are the cycles in which the array of one B4096 core computes, with the idle lanes that
its shape costs, and the cycles in which the parameters come from memory; the slower of the two
is taken. Feature maps that go to memory and back, instructions and everything that is not hidden
behind the array come on top, so a real run takes longer: `dpu.latency` predicts how long. Rules
that were not seen in a compiled file are assumptions and say so.
"""

from __future__ import annotations

import math

from dpu import fix_ops
from dpu.layers import CONVOLUTIONS, Layer
from dpu.limits import CHANNEL_PARALLEL as CHANNELS

OPERATIONS_PER_CYCLE = 4096
"""Of a B4096's array: 8 pixels x 16 input channels x 16 output channels x 2 (Xilinx PG338)."""

PIXELS = 8
"""Output rows that the array computes at once (PG338's pixel parallelism)."""

AUGMENTED_CHANNELS = CHANNELS // 2
"""Most input channels for which a compiler is assumed to use channel augmentation, where the
file does not say it: beyond them not even two columns of the kernel fit the 16 channels."""

ALU_PIXELS = 4
"""Output rows that pools compute at once: the padding in the pools of AMD's compiled files."""

ALU_BYTES_PER_CYCLE = ALU_PIXELS * CHANNELS
"""int8 values that pools, sums, products and concats take per cycle: an assumption, `ALU_PIXELS`
rows of `CHANNELS` channels."""

DEPTHWISE_PER_CYCLE = PIXELS * CHANNELS
"""Multiplications of depthwise convolutions per cycle: an assumption, as many rows as the array
has. The published MobileNets and EfficientNets bear it out: with half or twice as many, those that
are left out of `python -m host.fit_latency` are predicted worse."""

PORT_BYTES_PER_CYCLE = 32
"""Bytes that a core reads from memory per cycle at most: two data ports of 128 bits (PG338)."""

ON_CPU = ("softmax", "sigmoid", "tanh", "transpose")
"""Kinds that a compiler is assumed to leave to the CPU; a compiled file tells."""


def conv_work(
    out_h: int, out_w: int, out_c: int, k_h: int, k_w: int, in_c: int, augmented: bool = False
) -> int:
    """Operations of a convolution on the array, idle lanes included (`workload_on_arch`).

    ``pad8(out_h) * out_w * pad16(out_c) * (2 * k_h * k_w * pad16(in_c) + 1)``; with channel
    augmentation ``k_w`` and ``in_c`` are padded together: ``2 * k_h * pad16(k_w * in_c) + 1``.
    Source: equal to the attribute of all 24 convolutions of AMD's compiled MNIST and
    PointPillars models. It is the height that is padded to 8, which square outputs do not tell.
    """
    depth = k_h * (_pad(k_w * in_c, CHANNELS) if augmented else k_w * _pad(in_c, CHANNELS))
    return _pad(out_h, PIXELS) * out_w * _pad(out_c, CHANNELS) * (2 * depth + 1)


def transposed_conv_work(
    out_h: int, out_w: int, out_c: int, k_h: int, k_w: int, in_c: int, stride_h: int, stride_w: int
) -> int:
    """Operations of a transposed convolution: one convolution for each of its phases.

    Source: equal to the attribute of PointPillars' three, whose kernels are as large as their
    strides; that other kernels are rounded up to whole strides is an assumption.
    """
    phase = conv_work(
        math.ceil(out_h / stride_h),
        math.ceil(out_w / stride_w),
        out_c,
        math.ceil(k_h / stride_h),
        math.ceil(k_w / stride_w),
        in_c,
    )
    return stride_h * stride_w * phase


def pool_work(out_h: int, out_w: int, channels: int, k_h: int, k_w: int) -> int:
    """Operations of a pool: ``pad4(out_h) * out_w * pad16(channels) * k_h * k_w``.

    Source: equal to the attribute of the three max pools of AMD's files. Average pools and
    depthwise convolutions carry none there and are assumed to follow the same rule.
    """
    return _pad(out_h, ALU_PIXELS) * out_w * _pad(channels, CHANNELS) * k_h * k_w


def _pad(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


def work_on_array(layer: Layer) -> int | None:
    """Operations of a layer with idle lanes: the op's own `workload_on_arch`, else by rule.

    None for what neither the array nor the pools compute.
    """
    if layer.op.has_attr("workload_on_arch"):
        return int(layer.op.get_attr("workload_on_arch"))
    return work_by_rule(layer)


def work_by_rule(layer: Layer) -> int | None:
    """As `work_on_array`, without regard to the op's attribute."""
    if layer.kind == "inner-product" and layer.weights is not None:
        outputs, *inputs = layer.weights.get_output_tensor().dims
        return conv_work(1, 1, outputs, 1, 1, math.prod(inputs))
    if len(layer.dims) != 4 or not layer.sources:
        return None
    _, out_h, out_w, out_c = layer.dims
    k_w, k_h = layer.kernel or [1, 1]
    if "pool" in layer.kind or (layer.kind in CONVOLUTIONS and "depthwise" in layer.kind):
        return pool_work(out_h, out_w, out_c, k_h, k_w)
    if layer.kind not in CONVOLUTIONS or layer.weights is None:
        return None
    in_c = layer.weights.get_output_tensor().dims[3]
    if layer.kind == "conv2d":
        return conv_work(out_h, out_w, out_c, k_h, k_w, in_c, augmented(layer, in_c))
    stride_w, stride_h = layer.stride
    return transposed_conv_work(out_h, out_w, out_c, k_h, k_w, in_c, stride_h, stride_w)


def augmented(layer: Layer, in_c: int) -> bool:
    """Whether channel augmentation is used: as a compiled op says, else by `in_c`."""
    if layer.op.has_attr("workload_on_arch"):  # AMD's compiler wrote the op and says it
        return layer.op.has_attr("channel_augmentation")
    return in_c <= AUGMENTED_CHANNELS


def runs_on_dpu(layer: Layer) -> bool:
    """Whether the DPU computes the layer: as the file says, else by kind."""
    if layer.kind == "input":
        return False
    if layer.device is not None:
        return layer.device == "DPU"
    pool = layer.kind in ("maxpool2d", "avgpool2d")
    return (pool or f"{layer.kind}-fix" in fix_ops.OPS) and layer.kind not in ON_CPU


def array_cycles(layer: Layer) -> float | None:
    """Least cycles that one core computes on a layer; None for what the DPU does not compute.

    ``work_on_array / 4096`` for convolutions, all values under their windows by
    `DEPTHWISE_PER_CYCLE` for depthwise ones and by `ALU_BYTES_PER_CYCLE` for pools; the rest take
    their inputs once, `ALU_BYTES_PER_CYCLE` at a time.
    """
    if not runs_on_dpu(layer):
        return None
    work = work_on_array(layer)
    if work is not None:
        return work / work_per_cycle(layer.kind)
    if layer.kind in ("reshape", "flatten", "squeeze", "identity"):
        return 0.0  # the same bytes under another shape
    return sum(math.prod(source.dims) for source in layer.sources) / ALU_BYTES_PER_CYCLE


def work_per_cycle(kind: str) -> int:
    """What `work_by_rule` counts, per cycle, for a layer's kind."""
    if "depthwise" in kind:
        return DEPTHWISE_PER_CYCLE
    return ALU_BYTES_PER_CYCLE if "pool" in kind else OPERATIONS_PER_CYCLE


def memory_cycles(layer: Layer) -> float | None:
    """Least cycles in which the layer's parameters, one byte each, come from memory."""
    return layer.parameters / PORT_BYTES_PER_CYCLE if runs_on_dpu(layer) else None


def cycles(layer: Layer) -> float | None:
    """The slower of `array_cycles` and `memory_cycles`: a lower bound for one core."""
    computing, loading = array_cycles(layer), memory_cycles(layer)
    return None if computing is None or loading is None else max(computing, loading)
