"""Races: two accesses of one place, one of them a write, that no token orders."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, execute
from tutelage.dpu.isa.formats import ENGINES, IsaError
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.isa.program import legal_order
from tutelage.dpu.ops.limits import BANK_DEPTH

_NUMBER = {engine: number for number, engine in enumerate(ENGINES)}


def run_checked(code: Sequence[Instruction], machine: Machine) -> None:
    """Execute code in its own order and look for races.

    Each instruction has a vector clock: for each engine, how many of its instructions have
    certainly ended before this one begins, by the tokens that it took and those that the givers
    took before (Lamport's happened-before). Tokens between two engines are taken in the order in
    which they are given, as both engines are in order.

    Raises
    ------
    IsaError
        An access is not ordered with an earlier one of the same place; the text names both
        instructions. Else as `program.run`.
    """
    watch = _Watch(code, machine)
    machine.watch = watch
    settings, clocks = Settings(), _Clocks()
    try:
        for place in legal_order(code):
            watch.begin(place, clocks.begin(code[place]))
            try:
                execute(code[place], machine, settings)
            except IsaError as error:
                raise IsaError(f"instruction {place} ({code[place].name}): {error}") from error
            clocks.end(code[place])
    finally:
        machine.watch = None


class _Clocks:
    """The vector clock of the instruction that runs, from those that tokens carry."""

    def __init__(self) -> None:
        zero = np.zeros(len(ENGINES), np.int64)
        self._engines = dict.fromkeys(ENGINES, zero)
        self._tokens = {(a, b): deque[Array]() for a in ENGINES for b in ENGINES}
        for engine in ENGINES:
            self._tokens[engine, engine].append(zero)

    def begin(self, instruction: Instruction) -> Array:
        """The clock with which an instruction begins, int64 [engine]."""
        own = instruction.engine
        clock = self._engines[own]
        for engine in ENGINES:
            if instruction.dpdon & engine:
                clock = np.maximum(clock, self._tokens[engine, own].popleft())
        self._engines[own] = clock.copy()
        return clock

    def end(self, instruction: Instruction) -> None:
        """Count the instruction and put its clock on the tokens that it gives."""
        own = instruction.engine
        clock = self._engines[own]
        clock[_NUMBER[own]] += 1
        for engine in ENGINES:
            if instruction.dpdby & engine:
                self._tokens[own, engine].append(clock.copy())


class _Watch:
    """The last writer and readers of each bank row and DDR byte, by place in the code.

    Only LOADs read the DDR and only SAVEs write it, so one reader and one writer are enough there.
    """

    def __init__(self, code: Sequence[Instruction], machine: Machine) -> None:
        counts = np.zeros(len(ENGINES), np.int64)
        self._engine = np.array([_NUMBER[i.engine] for i in code] + [0])  # the last is of "none"
        self._turn = np.zeros(len(code) + 1, np.int64)
        for place, number in enumerate(self._engine[:-1].tolist()):
            counts[number] += 1
            self._turn[place] = counts[number]
        self._names = [i.name for i in code]
        rows = machine.shape.banks * BANK_DEPTH
        self._bank_writer = np.full(rows, -1, np.int32)
        self._bank_readers = np.full((len(ENGINES), rows), -1, np.int32)
        self._ddr = {
            register: np.full((2, len(memory)), -1, np.int32)
            for register, memory in machine.registers.items()
        }
        self._place, self._clock = 0, counts

    def begin(self, place: int, clock: Array) -> None:
        """The instruction that the next accesses belong to."""
        self._place, self._clock = place, clock

    def bank(self, rows: Array, writes: bool) -> None:
        """An access to rows of banks."""
        self._compare(self._bank_writer[rows], "bank row", rows)
        if not writes:
            self._bank_readers[self._engine[self._place], rows] = self._place
            return
        for readers in self._bank_readers:
            self._compare(readers[rows], "bank row", rows)
        self._bank_writer[rows] = self._place

    def ddr(self, register: int, offsets: Array, count: int, writes: bool) -> None:
        """An access to bytes of a register."""
        places = offsets[:, None] + np.arange(count)
        reader, writer = self._ddr[register]
        self._compare(writer[places], f"register {register}, byte", places)
        if writes:
            self._compare(reader[places], f"register {register}, byte", places)
            writer[places] = self._place
        else:
            reader[places] = self._place

    def _compare(self, others: Array, what: str, places: Array) -> None:
        """Raise where one of the earlier accesses may not have ended."""
        engines = self._engine[others]
        late = (others >= 0) & (self._turn[others] > self._clock[engines])
        late &= engines != self._engine[self._place]
        if late.any():
            other = int(others[late][0])
            place = int(np.broadcast_to(places, others.shape)[late][0])
            where = f"{place // BANK_DEPTH}:{place % BANK_DEPTH}" if what == "bank row" else place
            raise IsaError(
                f"race: instruction {self._place} ({self._names[self._place]}) and instruction "
                f"{other} ({self._names[other]}) both reach {what} {where}, and no token orders "
                "them"
            )
