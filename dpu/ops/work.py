"""Work on the DPU's array: the parts of the rules of `workload_on_arch` common to all op types.

AMD's compiler writes the attribute `workload_on_arch`. Its unit depends on the op type: operations
(two per multiply-accumulate) for convolutions, values read for pools and sums. Cycles are computed
from the shapes rather than the attribute for two reasons. In two files for a B3136, the attribute
of the first convolution is half of what the instructions compute: 15 channels, which take two
groups of 14, count as one. In files of Vitis AI 3.0 that of average pools is doubled. Rules that
were not found in a compiled file are marked as assumptions.
"""

from __future__ import annotations

from typing import Protocol

from tutelage.core.fingerprint import B4096, DpuArray

Shape = tuple[int, int, int]
"""Height, width, channels."""

ALU_PIXELS = 4
"""Output rows are padded to this in the attribute of pools, sums and depthwise convolutions, for
every array size."""


class Operation(Protocol):
    """Operation whose work is counted: `tutelage.dpu.predict.operations.Operation`."""

    @property
    def output(self) -> Shape:
        """Shape of the result."""

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the window."""

    @property
    def stride(self) -> tuple[int, int]:
        """Vertical and horizontal stride of the window."""

    @property
    def depth(self) -> int:
        """Number of input channels per output value."""

    @property
    def augmented(self) -> bool | None:
        """Whether kernel width and input channels share lanes; None if unknown."""

    @property
    def constants(self) -> tuple[Shape, ...]:
        """Shapes of its elementwise constants."""


def alu_bytes_per_cycle(array: DpuArray) -> int:
    """Return the int8 values per cycle of pools, sums and products: `ALU_PIXELS` rows, assumed."""
    return ALU_PIXELS * array.channels


def depthwise_per_cycle(array: DpuArray) -> int:
    """Return the multiplications of depthwise convolutions per cycle: the array's rows, assumed.

    The published MobileNets and EfficientNets support this for a B4096: with half or twice as many,
    the predictions of networks left out of `python -m tutelage.host.latency.fit` are worse.
    """
    return array.rows * array.channels


def padded(size: int, lanes: int) -> int:
    """Return `size` rounded up to whole lanes."""
    return -(-size // lanes) * lanes


def value_work(height: int, width: int, channels: int, array: DpuArray = B4096) -> int:
    """Return the values of a map with idle lanes: ``pad4(height) * width * pad16(channels)``."""
    return padded(height, ALU_PIXELS) * width * padded(channels, array.channels)


def pool_work(
    out_h: int, out_w: int, channels: int, k_h: int, k_w: int, array: DpuArray = B4096
) -> int:
    """Return the values that a pool reads: ``pad4(out_h) * out_w * pad16(channels) * k_h * k_w``.

    Source: equals the attribute in AMD's compiled files, except for average pools of Vitis AI 3.0,
    where it is twice as large.
    """
    return value_work(out_h, out_w, channels, array) * k_h * k_w
