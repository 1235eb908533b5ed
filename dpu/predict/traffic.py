"""The work of a core for a network, stage by stage: computation, loads and saves.

A stage is a convolution (or a depthwise one, a pool, a sum) with the pools and sums that read its
rows on the chip. AMD's compiler's use of on-chip memory was determined from the instructions
(`mc_code`) of its compiled models, PointPillars, MNIST, SqueezeNet, densebox, plate detect, SSD and
GoogLeNet:

- parameters are loaded once, with one LOAD per output channel and one for the biases;
- a map is loaded by one LOAD per row, and saved by one SAVE per row; a stride skips rows and
  columns that no window reads;
- a map that only the next operation reads stays on the chip if input and output fit there together:
  PointPillars' 62x54x64 maps do, its 124x108x32 ones go through memory. A map that several
  consecutive operations read stays for all of them if all of it fits into its group of banks;
- a max pool after a convolution reads its rows on the chip, however large the map is; one after a
  concat is computed on each part (`tutelage.dpu.predict.pooled_parts`);
- the inputs of a concat are saved to their places in the joined map, pixel by pixel, and the concat
  itself is free.

Very wide rows take several LOADs, and a convolution at a padded border is split; both are neglected
here. It is an assumption that a sum reads the rows of the preceding operation on the chip, as a max
pool does. The published ResNets and MobileNets support it: without it the predictions of networks
left out of `python -m tutelage.host.latency.fit` are worse.
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
"""Groups of map banks in one core; each has one bank per row of the array."""

Pixels = tuple[int, int]
"""Number of non-contiguous pixels in the DDR, and bytes per pixel."""


@dataclass
class Stage:
    """A convolution, or another operation, with its fused operations.

    Attributes
    ----------
    operations : the first one names the stage
    computing : cycles of the first operation on its engine (CONV or MISC), idle lanes included
    tiles, groups : number of row tiles, and of output channel groups with their own weights
    on_array : whether the multiplier array computes the first operation, rather than MISC
    serial : whether the weights of two groups do not fit into their banks together, so that
        loading and computing alternate
    fused : cycles of the other operations, on the MISC engine in parallel with the first
    parameter_loads, parameter_bytes : number of LOADs of parameters, and their bytes
    returned : whether it loads a map that an earlier stage saved
    load_rows, load_bytes, load_pixels : number of LOADs of maps, their bytes in whole rows, and
        their non-contiguous pixels in the DDR
    save_rows, save_bytes, save_pixels : the same for SAVEs
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
        """Shape of the last operation's result."""
        return self.operations[-1].output

    @property
    def name(self) -> str:
        """Names of its operations."""
        return " + ".join(operation.name for operation in self.operations)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operations."""
        return sum(operation.macs for operation in self.operations)

    @property
    def cycles(self) -> float:
        """Cycles of the slower of its engines: a lower bound."""
        return max(self.computing, self.fused)

    @property
    def loaded_bytes(self) -> int:
        """Bytes of maps loaded from the DDR."""
        return self.load_bytes + sum(map(math.prod, self.load_pixels))

    @property
    def stored_bytes(self) -> int:
        """Bytes of maps saved to the DDR."""
        return self.save_bytes + sum(map(math.prod, self.save_pixels))

    @property
    def transfers(self) -> int:
        """Number of LOADs and SAVEs."""
        return self.parameter_loads + self.load_rows + self.save_rows


def stages(operations: Sequence[Operation], array: DpuArray = B4096) -> list[Stage]:
    """Return the stages of a core for a network, in order.

    Inputs, concats and operations of the CPU are not included.

    Parameters
    ----------
    array : array of the core
    """
    return _Walk(pools_first(operations), array).stages()


def group_bytes(array: DpuArray) -> int:
    """Return the on-chip memory of one group of map banks, bytes.

    It has one bank per row of the array, each of 2,048 words with the channels of a pixel: 256 KiB
    for a B4096 (its banks by PG338, from memory; AMD's compiled PointPillars agrees, see above).
    """
    return array.rows * BANK_DEPTH * array.channels


def map_bytes(array: DpuArray) -> int:
    """Return the on-chip memory of one core for maps, bytes."""
    return MAP_GROUPS * group_bytes(array)


class _Walk:
    """Walk over the operations in order, tracking the maps on the chip."""

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
        """The map that the previous step left on the chip."""
        self.resident: int | None = None
        """The map that the previous step read, if all of it is in its group of banks."""

    def sources(self, place: int) -> list[int]:
        """Return the maps that an operation reads, skipping reshapes; a concat is one map."""
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
        """Add an operation, to the previous stage if it reads its rows on the chip."""
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
        if operation.parameters:  # weights for the MISC engine take one LOAD
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
        """Add the LOADs of maps; return the map that is then completely in its group, or None."""
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
        """Return whether the DPU computes a map or one of its parts."""
        operation = self.operations[place]
        if op_type(operation.kind).free:
            return any(map(self._computed, operation.sources))
        return operation.on_dpu

    def _save(self, stage: Stage, step: int, place: int, sources: list[int]) -> None:
        """Decide whether the result stays on the chip, and add its SAVEs if needed."""
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
        """Return how many of the next operations, in a row, read the map on the chip."""
        fits = self.footprint(place) <= group_bytes(self.array)
        if op_type(self.operations[coming[0]].kind).takes_rows or not fits:
            return 1
        served = 1
        while served < len(coming) and coming[served] in readers:
            served += 1
        return served

    def _stays(self, place: int, after: int, sources: list[int]) -> bool:
        """Return whether the result can stay on the chip for the next operation."""
        reader = self.operations[after]
        if not reader.on_dpu:
            return False
        if op_type(reader.kind).takes_rows and self.readers[place] == [after]:
            return True
        return sum(map(self.footprint, [*sources, place])) <= map_bytes(self.array)

    def footprint(self, place: int) -> int:
        """Return the bytes of a map on the chip, padded to all banks and to whole words."""
        (height, width, channels), rows = self.operations[place].output, self.array.rows
        word = self.array.channels
        return -(-height // rows) * rows * width * -(-channels // word) * word


def _keeps_bytes(operation: Operation) -> bool:
    """Return whether the operation's result has the same bytes as its input."""
    kind = op_type(operation.kind)
    return kind.free and not kind.joins
