"""Detection of races: two accesses to a row or byte, at least one a write, unordered by tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.accesses import NUMBER, AccessLog
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, execute_at
from tutelage.dpu.isa.formats import ENGINES, IsaError, engines_of
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.isa.program import legal_order
from tutelage.dpu.ops.limits import BANK_DEPTH


def run_checked(code: Sequence[Instruction], machine: Machine) -> None:
    """Execute code in its own order and raise an error for a race.

    Each instruction has a vector clock: for each engine, the number of its instructions that have
    certainly ended before this one begins, known from the tokens it took and those that their
    givers took before (Lamport's happened-before). Tokens between two engines are taken in the
    order in which they are given, since both engines are in order.

    Raises
    ------
    IsaError
        An access is not ordered with an earlier one to the same row or byte; the message names
        both instructions. Otherwise as for `program.run`.
    """
    log = _RaceLog(code, machine)
    machine.watch = log
    settings, clocks = Settings(), _Clocks()
    try:
        for place in legal_order(code):
            log.place, log.clock = place, clocks.begin(code[place])
            execute_at(code, place, machine, settings)
            clocks.end(code[place])
    finally:
        machine.watch = None


class _Clocks:
    """Vector clocks of the engines, propagated by tokens."""

    def __init__(self) -> None:
        self._engines = {engine: np.zeros(len(ENGINES), np.int64) for engine in ENGINES}
        self._tokens = {(a, b): deque[Array]() for a in ENGINES for b in ENGINES}
        for engine in ENGINES:
            self._tokens[engine, engine].append(np.zeros(len(ENGINES), np.int64))

    def begin(self, instruction: Instruction) -> Array:
        """Return the clock at the start of an instruction, int64 [engine]."""
        own = instruction.engine
        clock = self._engines[own]
        for engine in engines_of(instruction.dpdon):
            clock = np.maximum(clock, self._tokens[engine, own].popleft())
        self._engines[own] = clock.copy()
        return clock

    def end(self, instruction: Instruction) -> None:
        """Count the instruction, and attach its clock to the tokens that it gives."""
        own = instruction.engine
        clock = self._engines[own]
        clock[NUMBER[own]] += 1
        for engine in engines_of(instruction.dpdby):
            self._tokens[own, engine].append(clock.copy())


class _RaceLog(AccessLog):
    """Raises IsaError if an earlier access may not have ended.

    Attributes
    ----------
    clock : vector clock of the instruction being executed
    """

    def __init__(self, code: Sequence[Instruction], machine: Machine) -> None:
        super().__init__(code, machine)
        self._names = [instruction.name for instruction in code]
        self.clock = np.zeros(len(ENGINES), np.int64)
        self._turn = np.zeros(len(code), np.int64)  # order on its engine, from 1
        for number in range(len(ENGINES)):
            own = self.engines == number
            self._turn[own] = np.arange(1, own.sum() + 1)

    def depends(self, earlier: Array, what: str, places: Array) -> None:
        engines = self.engines[earlier]
        late = (earlier >= 0) & (self._turn[earlier] > self.clock[engines])
        late &= engines != self.engines[self.place]
        if not late.any():
            return
        other = int(earlier[late][0])
        place = int(np.broadcast_to(places, earlier.shape)[late][0])
        where = f"{place // BANK_DEPTH}:{place % BANK_DEPTH}" if what == "bank row" else place
        raise IsaError(
            f"race: instruction {self.place} ({self._names[self.place]}) and instruction {other} "
            f"({self._names[other]}) both access {what} {where}, and no token orders them"
        )
