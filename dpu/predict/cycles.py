"""How many cycles the DPU's array needs at least: lower bounds that follow from its shape.

Counted are the cycles in which the array of one core computes, with the idle lanes that its shape
costs, and the cycles in which the parameters come from memory; the slower of the two is taken.
Feature maps that go to memory and back, instructions and everything that is not hidden behind the
array come on top, so a real run takes longer: `tutelage.dpu.predict.latency` predicts how long.
Rules that were not seen in a compiled file are assumptions and say so.

`work` has the rules of the attribute `workload_on_arch`, which AMD's compiler writes. Its unit
depends on the kind of op: operations (two for a multiply-accumulate) of convolutions, values read
by pools and sums. Cycles are counted from the shapes, not from the attribute, because the attribute
of the convolution that begins two files for a B3136 is half of what their instructions compute (15
channels, which take two groups of 14, are counted as one), and that of average pools is doubled in
files of Vitis AI 3.0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tutelage.core.fingerprint import B4096, DpuArray
from tutelage.dpu.predict.operations import FREE, Operation, Shape

ALU_PIXELS = 4
"""Output rows that pools, sums and depthwise convolutions are padded to in the attribute, on every
size of array."""

PORT_BYTES_PER_CYCLE = 32
"""Bytes that a core reads from memory per cycle at most: two data ports of 128 bits (PG338)."""


def alu_bytes_per_cycle(array: DpuArray) -> int:
    """int8 values that pools, sums and products take per cycle: `ALU_PIXELS` rows, assumed."""
    return ALU_PIXELS * array.channels


def depthwise_per_cycle(array: DpuArray) -> int:
    """Multiplications of depthwise convolutions per cycle: as many rows as the array, assumed.

    The published MobileNets and EfficientNets bear it out for a B4096: with half or twice as many,
    those that are left out of `python -m tutelage.host.latency.fit` are predicted worse.
    """
    return array.rows * array.channels


def conv_work(
    out_h: int,
    out_w: int,
    out_c: int,
    k_h: int,
    k_w: int,
    in_c: int,
    augmented: bool = False,
    array: DpuArray = B4096,
) -> int:
    """Operations of a convolution on the array, idle lanes included (`workload_on_arch`).

    On a B4096 ``pad8(out_h) * out_w * pad16(out_c) * (2 * k_h * k_w * pad16(in_c) + 1)``; with
    channel augmentation ``k_w`` and ``in_c`` are padded together:
    ``2 * k_h * pad16(k_w * in_c) + 1``. Source: equal to the attribute of AMD's compiled files. It
    is the height that is padded to 8, not the width: files with square outputs do not show which.
    """
    lanes = array.channels
    depth = k_h * (_pad(k_w * in_c, lanes) if augmented else k_w * _pad(in_c, lanes))
    return _pad(out_h, array.rows) * out_w * _pad(out_c, lanes) * (2 * depth + 1)


def transposed_conv_work(
    out_h: int,
    out_w: int,
    out_c: int,
    k_h: int,
    k_w: int,
    in_c: int,
    stride_h: int,
    stride_w: int,
    array: DpuArray = B4096,
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
        array=array,
    )
    return stride_h * stride_w * phase


def pool_work(
    out_h: int, out_w: int, channels: int, k_h: int, k_w: int, array: DpuArray = B4096
) -> int:
    """Values that a pool reads: ``pad4(out_h) * out_w * pad16(channels) * k_h * k_w``.

    Source: equal to the attribute of AMD's compiled files, but for average pools of Vitis AI 3.0,
    which have twice as much.
    """
    return _pad(out_h, ALU_PIXELS) * out_w * _pad(channels, array.channels) * k_h * k_w


def depthwise_work(
    out_h: int, out_w: int, channels: int, k_h: int, k_w: int, array: DpuArray = B4096
) -> int:
    """Operations of a depthwise convolution: ``pad4(h) * w * pad16(channels) * (2 k_h k_w + 1)``.

    Source: equal to the attribute of AMD's compiled files.
    """
    return pool_work(out_h, out_w, channels, 1, 1, array) * (2 * k_h * k_w + 1)


def _pad(size: int, lanes: int) -> int:
    return -(-size // lanes) * lanes


def work(operation: Operation, inputs: Iterable[Shape], array: DpuArray = B4096) -> int | None:
    """Work of an operation by the rules of `workload_on_arch`; None for what costs none.

    Parameters
    ----------
    inputs : shapes of what it reads, which sums and products take value by value
    """
    (height, width, channels), (k_h, k_w), kind = operation.output, operation.kernel, operation.kind
    if kind in FREE or kind == "input":
        return None
    if kind == "conv2d":
        narrow = operation.augmented
        if narrow is None:
            narrow = operation.depth <= augmented_channels(array)
        return conv_work(height, width, channels, k_h, k_w, operation.depth, narrow, array)
    if kind == "transposed-conv2d":
        depth, stride = operation.depth, operation.stride
        return transposed_conv_work(height, width, channels, k_h, k_w, depth, *stride, array)
    if "depthwise" in kind:
        return depthwise_work(height, width, channels, k_h, k_w, array)
    if "pool" in kind:
        return pool_work(height, width, channels, k_h, k_w, array)
    return sum(pool_work(*shape, 1, 1, array) for shape in (*inputs, *operation.constants))


def augmented_channels(array: DpuArray) -> int:
    """Most input channels for which a compiler is assumed to use channel augmentation.

    For files that do not say it: beyond them not even two columns of the kernel fit the lanes.
    """
    return array.channels // 2


def compute_cycles(operation: Operation, inputs: Iterable[Shape], array: DpuArray = B4096) -> float:
    """Least cycles in which a core computes the operation, idle lanes included.

    Parameters
    ----------
    inputs : as of `work`
    """
    kind, found = operation.kind, work(operation, inputs, array)
    if found is None:
        return 0.0  # the same bytes under another shape, or written to their place
    if "depthwise" in kind:
        found = pool_work(*operation.output, *operation.kernel, array)
        return found / depthwise_per_cycle(array)
    if kind in ("conv2d", "transposed-conv2d"):
        return found / array.operations
    return found / alu_bytes_per_cycle(array)


@dataclass(frozen=True)
class Bound:
    """The least that one core needs for an operation.

    Attributes
    ----------
    work : as `work` counts it
    computing, loading : cycles in which the array computes, and in which the parameters, one byte
        each, come from memory
    """

    work: int | None
    computing: float
    loading: float

    @property
    def cycles(self) -> float:
        """The slower of the two."""
        return max(self.computing, self.loading)


def bounds(operations: list[Operation], array: DpuArray = B4096) -> list[Bound | None]:
    """The bound of each operation; None for what the DPU does not compute."""
    found: list[Bound | None] = []
    for operation in operations:
        inputs = [operations[place].output for place in operation.sources]
        loading = operation.parameters / PORT_BYTES_PER_CYCLE
        found.append(
            Bound(work(operation, inputs, array), compute_cycles(operation, inputs, array), loading)
            if operation.on_dpu
            else None
        )
    return found
