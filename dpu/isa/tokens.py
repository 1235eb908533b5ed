"""Set the tokens of a program so that it computes the same in every order they allow."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings
from tutelage.dpu.isa.footprint import Footprint, Pixels, Rectangle, footprint
from tutelage.dpu.isa.formats import ENGINES, Engine, IsaError
from tutelage.dpu.isa.machine import Machine, Shape
from tutelage.dpu.ops.limits import BANK_DEPTH

_BANK_WRITERS = (Engine.LOAD, Engine.CONV, Engine.MISC)
_BANK_READERS = (Engine.SAVE, Engine.CONV, Engine.MISC)


def set_tokens(code: Sequence[Instruction], machine: Machine) -> None:
    """Set dpdon and dpdby of all ISA1 instructions in place, and pair SAVEs.

    Each instruction has its own engine's bit in both. A token covers all older instructions of the
    engine that gives it, since engines are in order. So an instruction takes a token from another
    engine only if it depends on a younger instruction there than its engine has waited for.

    Two consecutive, alike SAVEs from neighbouring banks use both ports together: the first waits
    for both, the second gives the tokens of both. An engine does not run further ahead of another
    than `MOST_OUTSTANDING` tokens, unless the code's own order needs it.

    Parameters
    ----------
    code : in an order that computes correctly
    machine : with the banks and registers of the target

    Raises
    ------
    IsaError
        An INIT is missing, or the code accesses memory outside a bank or a register.
    """
    units = [
        _Unit(first, last, code[first].engine)
        for first, last in _units(code, machine.shape.array.rows)
    ]
    _find_dependencies(code, units, machine)
    while _bound(units, _tokens(units)):
        pass
    for i in code:
        i.dpdon = i.dpdby = int(i.engine)
    for (producer, consumer), tokens in _tokens(units).items():
        for giver, taker in tokens:
            code[units[giver].last].dpdby |= consumer
            code[units[taker].first].dpdon |= producer
    for unit in units:
        if unit.last > unit.first:
            vars(code[unit.first])["hp_id"], vars(code[unit.last])["hp_id"] = 0, 1
            code[unit.first].dpdby, code[unit.last].dpdon = 0, 0


@dataclass
class _Unit:
    """A unit of execution: an instruction, or two paired SAVEs.

    Attributes
    ----------
    first, last : indices in the code
    youngest : by engine, the number of the last unit there that it depends on
    """

    first: int
    last: int
    engine: Engine
    youngest: dict[Engine, int] = field(default_factory=lambda: dict.fromkeys(ENGINES, -1))


_Tokens = dict[tuple[Engine, Engine], list[tuple[int, int]]]
"""(Producer, consumer) -> numbers of the units that give and take each token, in order."""


def _find_dependencies(
    code: Sequence[Instruction], units: Sequence[_Unit], machine: Machine
) -> None:
    log = _Log(machine, {i.reg_id for i in code if i.name == "SAVE"})
    settings = Settings()
    for number, unit in enumerate(units):
        for place in range(unit.first, unit.last + 1):
            what = footprint(code[place], settings, machine.shape)
            log.add(what, unit.engine, number, unit.youngest)


def _tokens(units: Sequence[_Unit]) -> _Tokens:
    """Return the tokens that the dependencies need: a unit takes one only for a younger producer
    than its engine has waited for."""
    found: _Tokens = {(a, b): [] for a in ENGINES for b in ENGINES if a is not b}
    for number, unit in enumerate(units):
        for producer, giver in unit.youngest.items():
            if producer is unit.engine or giver < 0:
                continue
            tokens = found[producer, unit.engine]
            if not tokens or giver > tokens[-1][0]:
                tokens.append((giver, number))
    return found


def _bound(units: Sequence[_Unit], found: _Tokens) -> bool:
    """Make the giver of a token wait until the token `MOST_OUTSTANDING` before was taken; return
    whether a wait was added."""
    added = False
    for (_, consumer), tokens in found.items():
        for (giver, _), (_, taker) in zip(tokens[MOST_OUTSTANDING:], tokens, strict=False):
            unit = units[giver]
            waited = _waited(found[consumer, unit.engine], giver)
            if max(waited, unit.youngest[consumer]) < taker < giver:
                unit.youngest[consumer] = taker
                added = True
    return added


def _waited(tokens: Sequence[tuple[int, int]], number: int) -> int:
    """Return the youngest giver that an engine has waited for up to a unit of it."""
    place = bisect_right(tokens, number, key=lambda token: token[1])
    return tokens[place - 1][0] if place else -1


MOST_OUTSTANDING = 128
"""Most tokens between two engines that are given but not taken. The limit of the hardware counters
is not known; in AMD's code an engine that runs ahead as far as possible reaches 204."""


def _units(code: Sequence[Instruction], rows: int) -> Iterator[tuple[int, int]]:
    """Yield the first and last index of each unit: one instruction, or two paired SAVEs.

    Parameters
    ----------
    rows : number of banks of a map group
    """
    place = 0
    while place < len(code):
        pair = place + 1 < len(code) and _are_pair(code[place], code[place + 1], rows)
        yield place, place + pair
        place += 1 + pair


def _are_pair(one: Instruction, two: Instruction, rows: int) -> bool:
    """Return whether two instructions are SAVEs that AMD's code pairs: alike, from neighbouring
    banks of a group, to one register."""
    if one.name != "SAVE" or two.name != "SAVE":
        return False
    neighbours = one.bank_id + 1 == two.bank_id and two.bank_id % rows != 0
    fields = ("length", "channel", "jump_read", "jump_write", "reg_id")
    alike = all(vars(one)[name] == vars(two)[name] for name in fields)
    return neighbours and alike


class _Log:
    """The last instruction of each engine that wrote and read each row and byte.

    Parameters
    ----------
    saved : registers that are written; there are no dependencies through the others
    """

    def __init__(self, machine: Machine, saved: set[int]) -> None:
        self._shape: Shape = machine.shape
        rows = machine.shape.banks, BANK_DEPTH
        self._writers = {engine: np.full(rows, -1, np.int32) for engine in _BANK_WRITERS}
        self._readers = {engine: np.full(rows, -1, np.int32) for engine in _BANK_READERS}
        self._sizes = {register: len(memory) for register, memory in machine.registers.items()}
        self._loaded: dict[int, Array] = {}
        self._saved: dict[int, Array] = {}
        self._written = saved

    def add(self, what: Footprint, engine: Engine, place: int, youngest: dict[Engine, int]) -> None:
        """Record accesses, and in `youngest` the last instructions that they depend on.

        Parameters
        ----------
        place : number of the unit that the instruction belongs to
        """
        for area in what.reads:
            self._depend(area, engine, self._writers, youngest)
        for area in what.writes:
            self._depend(area, engine, self._writers, youngest)
            self._depend(area, engine, self._readers, youngest)
        for area in what.reads:
            self._readers[engine][area.banks[0] : area.banks[1], slice(*area.rows)] = place
        for area in what.writes:
            self._writers[engine][area.banks[0] : area.banks[1], slice(*area.rows)] = place
        if what.ddr is not None:
            self._ddr(what.ddr, engine, place, youngest)

    def _depend(
        self, area: Rectangle, engine: Engine, log: dict[Engine, Array],
        youngest: dict[Engine, int],
    ) -> None:  # fmt: skip
        if not 0 <= area.banks[0] < area.banks[1] <= self._shape.banks:
            bank, banks = area.banks[1] - 1, self._shape.banks
            raise IsaError(f"bank {bank} does not exist; this DPU has {banks} banks")
        for other, places in log.items():
            if other is not engine:
                found = places[area.banks[0] : area.banks[1], slice(*area.rows)].max()
                youngest[other] = max(youngest[other], int(found))

    def _ddr(self, pixels: Pixels, engine: Engine, place: int, youngest: dict[Engine, int]) -> None:
        """Record a DDR access; only LOADs read the DDR and only SAVEs write it."""
        register = pixels.register
        if register not in self._sizes:
            raise IsaError(f"register {register} has no memory")
        if register not in self._written:
            return
        if engine is Engine.LOAD:
            if register in self._saved:
                found = self._view(self._saved, pixels).max(initial=-1)
                youngest[Engine.SAVE] = max(youngest[Engine.SAVE], int(found))
            self._view(self._loaded, pixels)[...] = place
        else:
            if register in self._loaded:
                found = self._view(self._loaded, pixels).max(initial=-1)
                youngest[Engine.LOAD] = max(youngest[Engine.LOAD], int(found))
            self._view(self._saved, pixels)[...] = place

    def _view(self, log: dict[int, Array], pixels: Pixels) -> Array:
        """Return the log of the bytes of a DDR access; bytes outside the register have none."""
        if pixels.register not in log:
            size = self._sizes[pixels.register] + _SLACK
            log[pixels.register] = np.full(size, -1, np.int32)
        places = log[pixels.register]
        if pixels.count == 1:
            return places[max(0, pixels.start) : pixels.start + pixels.size]
        end = pixels.start + pixels.count * pixels.jump
        return places[pixels.start : end].reshape(-1, pixels.jump)[:, : pixels.size]


_SLACK = 1 << 16
"""Extra bytes after a register's end, for the gap after the last pixel."""
