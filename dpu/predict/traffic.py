"""What a core moves for each operation: instructions and bytes between its memory and the DDR.

How AMD's compiler uses the memory on the chip was read from the instructions (`mc_code`) of its
compiled models for the ZCU104, PointPillars and MNIST (Vitis AI 2.5), whose LOADs and SAVEs
these rules count:

- parameters are loaded once, with one LOAD for each output channel;
- a map is loaded by one LOAD for each row, and saved by one SAVE for each row;
- what the next operation alone reads stays on the chip, where input and output fit there
  together: PointPillars' 62x54x64 maps do, its 124x108x32 ones go through memory;
- a max pool behind a convolution takes its rows on the chip, however large the map is;
- what a concat joins is saved to its place in the joined map, and the concat costs nothing.

Very wide rows take several LOADs there, and a convolution that meets padding is split; both are
left out here. Those two models have no sums, no average pools and no depthwise convolutions. That
a sum takes the rows of the operation before it on the chip, as a max pool does, is an assumption
that the published ResNets and MobileNets bear out: without it those that are left out of
`python -m tutelage.host.latency.fit` are predicted worse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from tutelage.core.fingerprint import B4096, DpuArray
from tutelage.dpu.inspect.layers import INPUT
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.ops.work import Shape
from tutelage.dpu.predict.cycles import compute_cycles
from tutelage.dpu.predict.operations import Operation

MAP_GROUPS = 2
"""Groups of banks for maps in one core; each has a bank for every row of the array."""


@dataclass
class Work:
    """What one core does for one operation of one image.

    Attributes
    ----------
    operation : of the network
    cycles : in which it computes, idle lanes included
    parameter_loads, map_transfers : instructions that move parameters, and maps
    parameter_bytes, loaded_bytes, stored_bytes : what they move; maps in the last two
    """

    operation: Operation
    cycles: float
    parameter_loads: int = 0
    map_transfers: int = 0
    parameter_bytes: int = 0
    loaded_bytes: int = 0
    stored_bytes: int = 0

    @property
    def bytes(self) -> int:
        """All bytes between the core and the DDR."""
        return self.parameter_bytes + self.loaded_bytes + self.stored_bytes


def works(operations: list[Operation], array: DpuArray = B4096) -> list[Work]:
    """What a core does for each operation that the DPU computes, in order.

    Inputs, concats and what the CPU computes are not among them.

    Parameters
    ----------
    array : the core's
    """
    return _Walk(operations, array).works()


def map_bytes(array: DpuArray) -> int:
    """On-chip memory of one core for maps: banks of 2,048 words, a word for each pixel's channels.

    512 KiB of a B4096 (its banks by PG338, from memory; AMD's compiled PointPillars agrees, see
    above).
    """
    return MAP_GROUPS * array.rows * BANK_DEPTH * array.channels


@dataclass
class _Walk:
    """The operations in order, and which results lie on the chip and in memory."""

    operations: list[Operation]
    array: DpuArray
    readers: dict[int, list[int]] = field(default_factory=dict)
    joined: set[int] = field(default_factory=set)
    on_chip: int | None = None
    """The result that the operation before left on the chip."""

    def works(self) -> list[Work]:
        steps = [
            place
            for place, operation in enumerate(self.operations)
            if not op_type(operation.kind).free and operation.kind != INPUT
        ]
        for place in steps:
            for source in self.sources(place):
                self.readers.setdefault(source, []).append(place)
        for place, operation in enumerate(self.operations):
            if op_type(operation.kind).joins:
                self.joined.update(self.sources(place))
        return [
            self.work(place, after)
            for place, after in pairwise([*steps, -1])
            if self.operations[place].on_dpu
        ]

    def sources(self, place: int) -> list[int]:
        """The results that an operation reads; a concat's is one, reshapes are looked through."""
        return list(dict.fromkeys(self._real(s) for s in self.operations[place].sources))

    def _real(self, place: int) -> int:
        operation = self.operations[place]
        while _looks_through(operation) and operation.sources:
            place = operation.sources[0]
            operation = self.operations[place]
        return place

    def work(self, place: int, after: int) -> Work:
        """One operation's work, with `after` the one that follows it."""
        operation = self.operations[place]
        shapes = [self.operations[source].output for source in operation.sources]
        work = Work(operation, compute_cycles(operation, shapes, self.array))
        if operation.parameters:
            work.parameter_loads, work.parameter_bytes = operation.output[2], operation.parameters
        sources = self.sources(place)
        for source in sources:
            if source != self.on_chip:
                self._load(work, source)
        readers = self.readers.get(place, [])
        near = after in readers and self._stays(place, after, sources)
        self.on_chip = place if near else None
        if not near or len(readers) > 1 or place in self.joined:
            work.map_transfers += operation.output[0]
            work.stored_bytes += math.prod(operation.output)
        return work

    def _load(self, work: Work, source: int) -> None:
        """Add the LOADs of a map: its rows, without those that a stride skips."""
        height, width, channels = self.operations[source].output
        operation = work.operation
        rows = min(height, operation.output[0] * operation.kernel[0]) if operation.depth else height
        work.map_transfers += rows
        work.loaded_bytes += rows * width * channels

    def _stays(self, place: int, after: int, sources: list[int]) -> bool:
        """Whether the result can stay on the chip for the operation that follows."""
        reader = self.operations[after]
        if not reader.on_dpu:
            return False
        if op_type(reader.kind).takes_rows and self.readers[place] == [after]:
            return True
        maps = [*sources, place]
        footprints = (_footprint(self.operations[p].output, self.array) for p in maps)
        return sum(footprints) <= map_bytes(self.array)


def _looks_through(operation: Operation) -> bool:
    """Whether the operation gives the very bytes that it reads."""
    kind = op_type(operation.kind)
    return kind.free and not kind.joins


def _footprint(shape: Shape, array: DpuArray) -> int:
    """Bytes of a map on the chip: rows are dealt out to the banks, channels fill whole words."""
    (height, width, channels), rows, word = shape, array.rows, array.channels
    return -(-height // rows) * rows * width * -(-channels // word) * word
