"""Work on the DPU's array: what all op types share of the rules of `workload_on_arch`.

AMD's compiler writes the attribute `workload_on_arch`. Its unit depends on the op type: operations
(two for a multiply-accumulate) of convolutions, values read by pools and sums. Cycles are counted
from the shapes, not from the attribute, because the attribute of the convolution that begins two
files for a B3136 is half of what their instructions compute (15 channels, which take two groups of
14, are counted as one), and that of average pools is doubled in files of Vitis AI 3.0. Rules that
were not seen in a compiled file are assumptions and say so.
"""

from __future__ import annotations

from typing import Protocol

from tutelage.core.fingerprint import B4096, DpuArray

Shape = tuple[int, int, int]
"""Height, width, channels."""

ALU_PIXELS = 4
"""Output rows that pools, sums and depthwise convolutions are padded to in the attribute, on every
size of array."""


class Operation(Protocol):
    """What work is counted from: `tutelage.dpu.predict.operations.Operation`."""

    @property
    def output(self) -> Shape:
        """Shape of the result."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the window."""

    @property
    def stride(self) -> tuple[int, int]:
        """Height and width of the window's steps."""

    @property
    def depth(self) -> int:
        """Input channels that one output value sums over."""

    @property
    def augmented(self) -> bool | None:
        """Whether the kernel's width and the input's channels share lanes; None where unknown."""

    @property
    def constants(self) -> tuple[Shape, ...]:
        """Shapes of constants that it takes value by value."""


def alu_bytes_per_cycle(array: DpuArray) -> int:
    """int8 values that pools, sums and products take per cycle: `ALU_PIXELS` rows, assumed."""
    return ALU_PIXELS * array.channels


def depthwise_per_cycle(array: DpuArray) -> int:
    """Multiplications of depthwise convolutions per cycle: as many rows as the array, assumed.

    The published MobileNets and EfficientNets bear it out for a B4096: with half or twice as many,
    those that are left out of `python -m tutelage.host.latency.fit` are predicted worse.
    """
    return array.rows * array.channels


def padded(size: int, lanes: int) -> int:
    """Return `size` rounded up to whole lanes."""
    return -(-size // lanes) * lanes


def value_work(height: int, width: int, channels: int, array: DpuArray = B4096) -> int:
    """Values of a map, idle lanes included: ``pad4(height) * width * pad16(channels)``."""
    return padded(height, ALU_PIXELS) * width * padded(channels, array.channels)


def pool_work(
    out_h: int, out_w: int, channels: int, k_h: int, k_w: int, array: DpuArray = B4096
) -> int:
    """Values that a pool reads: ``pad4(out_h) * out_w * pad16(channels) * k_h * k_w``.

    Source: equal to the attribute of AMD's compiled files, but for average pools of Vitis AI 3.0,
    which have twice as much.
    """
    return value_work(out_h, out_w, channels, array) * k_h * k_w
