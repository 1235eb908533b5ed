"""Set the tokens of a program, so that it computes the same in every order that they allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.accesses import AccessLog
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, execute_at
from tutelage.dpu.isa.formats import ENGINES
from tutelage.dpu.isa.machine import Machine


def set_tokens(code: Sequence[Instruction], machine: Machine) -> None:
    """Set dpdon and dpdby of all instructions, in place.

    Each has its own engine's bit in both. A token serves all older instructions of the engine that
    gives it, as engines are in order. So an instruction takes one from another engine only where
    it depends on a younger instruction there than those that its own engine has waited for.

    Parameters
    ----------
    code : in an order in which it is right
    machine : on which it is executed to see what it reads and writes

    Raises
    ------
    IsaError
        As `executor.execute`.
    """
    log = _Dependencies(code, machine)
    machine.watch = log
    settings = Settings()
    try:
        for place, instruction in enumerate(code):
            instruction.dpdon = instruction.dpdby = int(instruction.engine)
            log.place = place
            log.youngest = np.full(len(ENGINES), -1, np.int64)
            execute_at(code, place, machine, settings)
            log.wait(code)
    finally:
        machine.watch = None


class _Dependencies(AccessLog):
    """The youngest instruction of each engine that the current one depends on."""

    def __init__(self, code: Sequence[Instruction], machine: Machine) -> None:
        super().__init__(code, machine)
        self.youngest = np.full(len(ENGINES), -1, np.int64)
        self._waited = np.full((len(ENGINES), len(ENGINES)), -1, np.int64)  # by consumer, producer

    def depends(self, earlier: Array, what: str, places: Array) -> None:
        found = earlier[earlier >= 0]
        np.maximum.at(self.youngest, self.engines[found], found)

    def wait(self, code: Sequence[Instruction]) -> None:
        """Take tokens from the engines that were not waited for yet."""
        own = int(self.engines[self.place])
        for number, engine in enumerate(ENGINES):
            producer = int(self.youngest[number])
            if number != own and producer > self._waited[own, number]:
                self._waited[own, number] = producer
                code[self.place].dpdon |= engine
                code[producer].dpdby |= code[self.place].engine
