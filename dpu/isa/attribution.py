"""Find the layer and tensors that each instruction serves, and the location of tensors over time.

The code does not name them. Constants and inputs are known by their addresses in the DDR. The
program is executed with a tag for each bank row and DDR byte that identifies the tensor there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, execute_at
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.ops.limits import BANK_DEPTH

NOTHING = -1
"""Tag of a row or byte without a known tensor."""

_NO_TAG = np.array([NOTHING], np.int16)

MAX_NODES = np.iinfo(np.int16).max
"""Tags have 16 bits."""


@dataclass
class Lifetime:
    """Where a tensor is stored and when, as first and last index in the code; None for never.

    Attributes
    ----------
    chip : lifetime in banks
    ddr : lifetime in a register
    bytes : register and byte range that it was written to; None if never
    """

    chip: tuple[int, int] | None = None
    ddr: tuple[int, int] | None = None
    bytes: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Node:
    """A layer, input or constant of the graph.

    Attributes
    ----------
    name : name of the op that computes the values
    sources : numbers of the nodes that it reads, skipping reshapes and concats
    reader : for a constant, the number of the layer that it belongs to; else -1
    place : register and byte range of an input or constant, which is in the DDR from the start;
        None for others
    """

    name: str
    sources: frozenset[int] = frozenset()
    reader: int = NOTHING
    place: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Attribution:
    """The nodes that instructions serve.

    Attributes
    ----------
    layers : for each instruction, the number of its layer's node; NOTHING if unknown
    reads : for each instruction, the nodes whose values it reads
    lifetimes : lifetime of each node
    """

    layers: list[int]
    reads: list[tuple[int, ...]]
    lifetimes: dict[int, Lifetime] = field(default_factory=dict)


def attribute(code: Sequence[Instruction], machine: Machine, nodes: Sequence[Node]) -> Attribution:
    """Follow the tensors through a program by executing it.

    Parameters
    ----------
    code : in program order
    machine : with parameters and inputs loaded; the values of the inputs do not matter
    nodes : in topological order

    Raises
    ------
    IsaError
        As for `executor.execute_at`.
    UnsupportedError
        There are more nodes than tags.
    """
    if len(nodes) > MAX_NODES:
        raise UnsupportedError(
            f"{len(nodes):,} layers and constants; at most {MAX_NODES:,} are supported"
        )
    follower = _Follower(machine, nodes)
    machine.watch = follower
    settings = Settings()
    layers, reads = [], []
    try:
        for place, instruction in enumerate(code):
            follower.begin(place, instruction)
            execute_at(code, place, machine, settings)
            layers.append(follower.end(instruction))
            reads.append(tuple(sorted(follower.read)))
    finally:
        machine.watch = None
    _give_to_readers(code, layers)
    return Attribution(layers, reads, follower.lifetimes)


def _give_to_readers(code: Sequence[Instruction], layers: list[int]) -> None:
    """Assign LOADs of maps and INITs to the layer of the next computing instruction."""
    after = NOTHING
    for place in reversed(range(len(code))):
        name = code[place].name
        if name in ("CONV", "ALU", "POOL", "DPTWISE", "ELEW"):
            after = layers[place]
        elif layers[place] == NOTHING and name != "END":
            layers[place] = after


class _Follower:
    """A `machine.Watch` that tracks the tensor stored in each row and byte."""

    def __init__(self, machine: Machine, nodes: Sequence[Node]) -> None:
        self._nodes, self._width = nodes, machine.shape.width
        self._weight_rows = machine.shape.map_banks * BANK_DEPTH
        self._banks = np.full(machine.shape.banks * BANK_DEPTH, NOTHING, np.int16)
        self._ddr = {
            register: np.full(len(memory), NOTHING, np.int16)
            for register, memory in machine.registers.items()
        }
        self.lifetimes: dict[int, Lifetime] = {}
        for number, node in enumerate(nodes):
            if node.place is not None:
                register, first, last = node.place
                if register not in self._ddr:
                    continue
                self._ddr[register][max(0, first) : max(0, last)] = number
        self._current = NOTHING  # layer on MISC, which no constant identifies
        self.begin(0, None)

    def begin(self, place: int, instruction: Instruction | None) -> None:
        """Set the instruction that the following accesses belong to."""
        self._place = place
        self.read: set[int] = set()
        self._written: list[tuple[int, Array]] = []  # register, or -1 for banks; places
        self._moved = np.empty(0, np.int16)  # tags of the values that a LOAD or SAVE reads

    def bank(self, rows: Array, writes: bool) -> None:
        """Handle an access to rows of banks."""
        if writes:
            self._written.append((-1, rows))
        else:
            self._note(self._banks[rows], "chip")

    def ddr(self, register: int, offsets: Array, count: int, writes: bool) -> None:
        """Handle an access to bytes of a register."""
        places = offsets[:, None] + np.arange(count)
        if writes:
            self._written.append((register, places))
        else:
            self._note(self._ddr[register][places], "ddr")

    def _note(self, tags: Array, where: str) -> None:
        self._moved = tags
        for tag in np.unique(tags).tolist():
            if tag != NOTHING:
                self.read.add(tag)
                self._live(tag, where)

    def _live(self, tag: int, where: str) -> None:
        life = self.lifetimes.setdefault(tag, Lifetime())
        known = getattr(life, where) or (self._place, self._place)
        setattr(life, where, (known[0], self._place))

    def end(self, instruction: Instruction) -> int:
        """Tag the written rows and bytes; return the layer, or NOTHING."""
        if instruction.name == "LOAD":
            self._mark_load()
            own = {self._nodes[tag].reader for tag in self.read} - {NOTHING}
            return own.pop() if len(own) == 1 else NOTHING
        if instruction.name == "SAVE":
            return self._mark_save()
        if not self._written:
            return NOTHING
        layer = self._layer(instruction)
        for _, rows in self._written:
            self._banks[rows] = layer
            self._live(layer, "chip") if layer != NOTHING else None
        return layer

    def _mark_load(self) -> None:
        """Tag each row as its first byte, or with the commonest tag if the sizes do not match."""
        for _, rows in self._written:
            tags = self._moved
            if tags.ndim == 2 and len(tags) == rows.shape[0]:
                tags = tags[:, :: self._width][:, : rows.shape[-1]]
            else:
                values, counts = np.unique(tags, return_counts=True)
                tags = values[[counts.argmax()]] if len(values) else _NO_TAG
            self._banks[rows] = tags
            for tag in np.unique(tags).tolist():
                if tag != NOTHING:
                    self._live(tag, "chip")

    def _mark_save(self) -> int:
        layer = NOTHING
        for register, places in self._written:
            tags = np.repeat(self._moved, self._width, -1)[:, : places.shape[1]]
            self._ddr[register][places] = tags
            for tag in np.unique(tags).tolist():
                if tag != NOTHING:
                    self._live(tag, "ddr")
                    self._reach(tag, register, places)
                    layer = tag
        return layer

    def _reach(self, tag: int, register: int, places: Array) -> None:
        life = self.lifetimes[tag]
        first, last = int(places.min()), int(places.max()) + 1
        if life.bytes is not None and life.bytes[0] == register:
            first, last = min(first, life.bytes[1]), max(last, life.bytes[2])
        life.bytes = register, first, last

    def _layer(self, instruction: Instruction) -> int:
        """Return the layer of a computing instruction, by its constants or its inputs."""
        owners = {self._nodes[tag].reader for tag in self.read} - {NOTHING}
        if len(owners) == 1:
            return owners.pop()
        values = {tag for tag in self.read if self._nodes[tag].reader == NOTHING}
        if self._current != NOTHING and values <= self._nodes[self._current].sources:
            return self._current
        for number, node in enumerate(self._nodes):
            if number > max(values, default=0) and values and values <= node.sources:
                self._current = number
                return number
        if len(values) == 1:  # a copy with another fix point
            return values.pop()
        return NOTHING
