"""What a core does for a network, stage by stage: what it computes, and what it loads and saves.

A stage is a convolution (or a depthwise one, a pool, a sum) with the pools and sums that take its
rows on the chip. How AMD's compiler uses the memory on the chip was read from the instructions
(`mc_code`) of its compiled models, PointPillars, MNIST, SqueezeNet, densebox, plate detect, SSD and
GoogLeNet:

- parameters are loaded once, with one LOAD for each output channel and one for the biases;
- a map is loaded by one LOAD for each row, and saved by one SAVE for each row; a stride skips rows
  and columns that no window reads;
- what the next operation alone reads stays on the chip, where input and output fit there
  together: PointPillars' 62x54x64 maps do, its 124x108x32 ones go through memory. A map that
  several operations read one after the other stays for all of them, where all of it fits in its
  group of banks;
- a max pool behind a convolution takes its rows on the chip, however large the map is; one behind a
  concat is done on each part (`tutelage.dpu.predict.pooled_parts`);
- what a concat joins is saved to its place in the joined map, pixel by pixel, and the concat costs
  nothing.

Very wide rows take several LOADs there, and a convolution that meets padding is split; both are
left out here. That a sum takes the rows of the operation before it on the chip, as a max pool does,
is an assumption that the published ResNets and MobileNets bear out: without it those that are left
out of `python -m tutelage.host.latency.fit` are predicted worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tutelage.core.fingerprint import B4096, DpuArray
from tutelage.dpu.inspect.layers import INPUT
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.ops.work import ALU_PIXELS, Shape
from tutelage.dpu.predict.cycles import compute_cycles
from tutelage.dpu.predict.operations import Operation
from tutelage.dpu.predict.pooled_parts import pools_first

MAP_GROUPS = 2
"""Groups of banks for maps in one core; each has a bank for every row of the array."""

Pixels = tuple[int, int]
"""A number of pixels that are apart in the DDR, and the bytes of each."""


@dataclass
class Stage:
    """A convolution, or another operation, with all that is fused to it.

    Attributes
    ----------
    operations : the first one names the stage
    computing : cycles of the first on its engine (CONV or MISC), idle lanes included
    tiles, groups : of rows, and of output channels that have weights of their own
    on_array : the array of multipliers computes the first, else the MISC engine does
    serial : the weights of two groups do not fit their banks, so that loading them and computing
        take turns
    fused : cycles of the other operations, on the MISC engine beside the first
    parameter_loads, parameter_bytes : LOADs of parameters, and what they move
    returned : it loads a map that an earlier stage saved
    load_rows, load_bytes, load_pixels : LOADs of maps, their bytes in whole rows, and the pixels
        that are apart in the DDR
    save_rows, save_bytes, save_pixels : the same of SAVEs
    """

    operations: list[Operation]
    computing: float
    tiles: int
    groups: int = 1
    on_array: bool = False
    serial: bool = False
    fused: float = 0.0
    parameter_loads: int = 0
    parameter_bytes: int = 0
    returned: bool = False
    load_rows: int = 0
    load_bytes: int = 0
    load_pixels: list[Pixels] = field(default_factory=list)
    save_rows: int = 0
    save_bytes: int = 0
    save_pixels: list[Pixels] = field(default_factory=list)

    @property
    def operation(self) -> Operation:
        """The first operation."""
        return self.operations[0]

    @property
    def output(self) -> Shape:
        """Shape of what the last operation gives."""
        return self.operations[-1].output

    @property
    def name(self) -> str:
        """The names of its operations."""
        return " + ".join(operation.name for operation in self.operations)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operations."""
        return sum(operation.macs for operation in self.operations)

    @property
    def cycles(self) -> float:
        """Cycles in which the slower of its engines computes: a lower bound."""
        return max(self.computing, self.fused)

    @property
    def loaded_bytes(self) -> int:
        """Bytes of maps from the DDR."""
        return self.load_bytes + sum(map(math.prod, self.load_pixels))

    @property
    def stored_bytes(self) -> int:
        """Bytes of maps to the DDR."""
        return self.save_bytes + sum(map(math.prod, self.save_pixels))

    @property
    def transfers(self) -> int:
        """LOADs and SAVEs."""
        return self.parameter_loads + self.load_rows + self.save_rows


def stages(operations: Sequence[Operation], array: DpuArray = B4096) -> list[Stage]:
    """Return what a core does for a network, in order.

    Inputs, concats and what the CPU computes are not in it.

    Parameters
    ----------
    array : the core's
    """
    return _Walk(pools_first(operations), array).stages()


def group_bytes(array: DpuArray) -> int:
    """On-chip memory of one group of banks for maps.

    A bank for each row of the array has 2,048 words, a word for each pixel's channels: 256 KiB of a
    B4096 (its banks by PG338, from memory; AMD's compiled PointPillars agrees, see above).
    """
    return array.rows * BANK_DEPTH * array.channels


def map_bytes(array: DpuArray) -> int:
    """On-chip memory of one core for maps."""
    return MAP_GROUPS * group_bytes(array)


class _Walk:
    """The operations in order, and which maps are on the chip."""

    def __init__(self, operations: list[Operation], array: DpuArray) -> None:
        self.operations, self.array = operations, array
        self.steps = [
            place
            for place, operation in enumerate(operations)
            if not op_type(operation.kind).free and operation.kind != INPUT
        ]
        self.readers: dict[int, list[int]] = {}
        for place in self.steps:
            for source in self.sources(place):
                self.readers.setdefault(source, []).append(place)
        self.joined = {
            source
            for place, operation in enumerate(operations)
            if op_type(operation.kind).joins
            for source in self.sources(place)
        }
        self.on_chip: int | None = None
        """The map that the step before left on the chip."""
        self.resident: int | None = None
        """The map that it read, where all of it is in its group of banks."""

    def sources(self, place: int) -> list[int]:
        """Return the maps that an operation reads; a concat's is one, reshapes do not count."""
        return list(dict.fromkeys(self._real(s) for s in self.operations[place].sources))

    def _real(self, place: int) -> int:
        operation = self.operations[place]
        while _keeps_bytes(operation) and operation.sources:
            place = operation.sources[0]
            operation = self.operations[place]
        return place

    def stages(self) -> list[Stage]:
        found: list[Stage] = []
        for step, place in enumerate(self.steps):
            if self.operations[place].on_dpu:
                self._add(found, step, place)
            else:
                self.on_chip = self.resident = None
        return found

    def _add(self, found: list[Stage], step: int, place: int) -> None:
        """Add an operation, to the stage before it where it takes its rows."""
        operation, sources = self.operations[place], self.sources(place)
        shapes = [self.operations[source].output for source in operation.sources]
        cycles = compute_cycles(operation, shapes, self.array)
        fused = bool(found) and self.on_chip in sources and op_type(operation.kind).takes_rows
        if fused:
            found[-1].fused += cycles
            found[-1].operations.append(operation)
        else:
            found.append(self._stage(operation, cycles))
        stage = found[-1]
        if operation.parameters:  # weights of what the MISC engine computes come in one LOAD
            on_array = op_type(operation.kind).on_array
            stage.parameter_loads += operation.output[2] + 1 if on_array else 2
            stage.parameter_bytes += operation.parameters
        kept = self._load(stage, place, sources, fused)
        self._save(stage, step, place, sources)
        self.resident = kept

    def _stage(self, operation: Operation, cycles: float) -> Stage:
        (height, _, channels), kind = operation.output, op_type(operation.kind)
        if not kind.on_array:
            return Stage([operation], cycles, -(-height // ALU_PIXELS))
        tiles, groups = -(-height // self.array.rows), -(-channels // self.array.channels)
        serial = 2 * kind.bank_words(operation, self.array) > BANK_DEPTH
        return Stage([operation], cycles, tiles, groups, True, serial)

    def _load(self, stage: Stage, place: int, sources: list[int], fused: bool) -> int | None:
        """Add the LOADs of maps; return the map that is then in its group as a whole."""
        operation = self.operations[place]
        pooled = fused and op_type(operation.kind).family == "pool"
        kept = self.resident if pooled else None
        for source in sources:
            if source not in (self.on_chip, self.resident):
                self._load_map(stage, operation, source)
            if not fused:
                kept = source
        whole = kept is not None and self.footprint(kept) <= group_bytes(self.array)
        return kept if whole else None

    def _load_map(self, stage: Stage, operation: Operation, source: int) -> None:
        height, width, channels = self.operations[source].output
        rows, columns = height, width
        if operation.depth:  # a stride skips rows and columns
            rows = min(height, operation.output[0] * operation.kernel[0])
            if rows < height:
                columns = min(width, operation.output[1] * operation.kernel[1])
        stage.load_rows += rows
        stage.returned = stage.returned or self._computed(source)
        if source in self.joined or columns < width:
            stage.load_pixels.append((rows * columns, channels))
        else:
            stage.load_bytes += rows * width * channels

    def _computed(self, place: int) -> bool:
        """Whether the DPU computes a map or one of its parts."""
        operation = self.operations[place]
        if op_type(operation.kind).free:
            return any(map(self._computed, operation.sources))
        return operation.on_dpu

    def _save(self, stage: Stage, step: int, place: int, sources: list[int]) -> None:
        """Decide whether the result stays on the chip, and add its SAVEs where they are needed."""
        readers, coming = self.readers.get(place, []), self.steps[step + 1 :]
        near = bool(coming) and coming[0] in readers and self._stays(place, coming[0], sources)
        served = self._served(place, readers, coming) if near else 0
        self.on_chip = place if near else None
        stage.save_rows, stage.save_bytes, stage.save_pixels = 0, 0, []
        if served < len(readers) or not readers or place in self.joined:
            height, width, channels = self.operations[place].output
            stage.save_rows = height
            if place in self.joined:
                stage.save_pixels = [(height * width, channels)]
            else:
                stage.save_bytes = height * width * channels

    def _served(self, place: int, readers: list[int], coming: list[int]) -> int:
        """How many of the coming operations, in a row, read the map on the chip."""
        fits = self.footprint(place) <= group_bytes(self.array)
        if op_type(self.operations[coming[0]].kind).takes_rows or not fits:
            return 1
        served = 1
        while served < len(coming) and coming[served] in readers:
            served += 1
        return served

    def _stays(self, place: int, after: int, sources: list[int]) -> bool:
        """Whether the result can stay on the chip for the operation that follows."""
        reader = self.operations[after]
        if not reader.on_dpu:
            return False
        if op_type(reader.kind).takes_rows and self.readers[place] == [after]:
            return True
        return sum(map(self.footprint, [*sources, place])) <= map_bytes(self.array)

    def footprint(self, place: int) -> int:
        """Bytes of a map on the chip: rows are dealt to banks, channels fill whole words."""
        (height, width, channels), rows = self.operations[place].output, self.array.rows
        word = self.array.channels
        return -(-height // rows) * rows * width * -(-channels // word) * word


def _keeps_bytes(operation: Operation) -> bool:
    """Whether the operation gives the very bytes that it reads."""
    kind = op_type(operation.kind)
    return kind.free and not kind.joins
