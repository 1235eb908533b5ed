"""Track the last instruction to access each bank row and DDR byte, to find dependencies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.formats import ENGINES
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.ops.limits import BANK_DEPTH

NUMBER = {engine: number for number, engine in enumerate(ENGINES)}
"""Engine -> index in arrays."""


class AccessLog(ABC):
    """A `machine.Watch` that reports every access that must follow an earlier one.

    These are reads after writes, writes after reads and writes after writes of the same bank row
    or DDR byte. Only LOADs read the DDR and only SAVEs write it, so tracking one reader and one
    writer is enough there.

    Attributes
    ----------
    place : index in the code of the instruction being executed
    engines : int [instruction], engine of each instruction by `NUMBER`
    """

    def __init__(self, code: Sequence[Instruction], machine: Machine) -> None:
        self.place = 0
        self.engines = np.array([NUMBER[i.engine] for i in code], np.int64)
        rows = machine.shape.banks * BANK_DEPTH
        self._writer = np.full(rows, -1, np.int32)
        self._readers = np.full((len(ENGINES), rows), -1, np.int32)
        self._ddr = {
            register: np.full((2, len(memory)), -1, np.int32)
            for register, memory in machine.registers.items()
        }

    @abstractmethod
    def depends(self, earlier: Array, what: str, places: Array) -> None:
        """Record that the instruction at `place` must follow others.

        Parameters
        ----------
        earlier : indices of instructions in the code, -1 for none; of any shape
        what : "bank row" or a register
        places : the accessed rows or bytes, broadcast to the same shape
        """

    def bank(self, rows: Array, writes: bool) -> None:
        """Handle an access to rows of banks."""
        self.depends(self._writer[rows], "bank row", rows)
        if not writes:
            self._readers[self.engines[self.place], rows] = self.place
            return
        for readers in self._readers:
            self.depends(readers[rows], "bank row", rows)
        self._writer[rows] = self.place

    def ddr(self, register: int, offsets: Array, count: int, writes: bool) -> None:
        """Handle an access to bytes of a register."""
        places = offsets[:, None] + np.arange(count)
        reader, writer = self._ddr[register]
        self.depends(writer[places], f"byte of register {register}", places)
        if writes:
            self.depends(reader[places], f"byte of register {register}", places)
            writer[places] = self.place
        else:
            reader[places] = self.place
