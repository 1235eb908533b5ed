"""The machine that instructions change: banks on the chip and registers of the DDR.

On-chip memory is banks of 2,048 rows; a row has a byte for each of `width` channels of one pixel.
Banks have consecutive numbers: the groups for feature maps, the convolution weights (one bank for
each output channel), the depthwise weights, the biases. A DDR address is a byte offset into one of
eight registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import DpuArray, array_of, describe
from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.formats import ISAS, Isa, IsaError
from tutelage.dpu.ops.limits import BANK_DEPTH

REGISTERS = 8
"""Base registers of the DDR."""


@dataclass(frozen=True)
class Shape:
    """The core of a DPU, as its fingerprint describes it.

    Attributes
    ----------
    isa : its instruction set
    array : rows and channels that CONV computes at once
    groups : map groups, each of `array.rows` banks
    alu_rows : rows that MISC computes at once
    """

    isa: Isa
    array: DpuArray
    groups: int
    alu_rows: int

    @property
    def width(self) -> int:
        """Bytes of a bank's row: channels that are next to each other."""
        return self.array.channels

    @property
    def map_banks(self) -> int:
        """Banks for feature maps; they are the first."""
        return self.groups * self.array.rows

    @property
    def weight_bank(self) -> int:
        """The first bank of convolution weights, of `array.channels`."""
        return self.map_banks

    @property
    def depthwise_bank(self) -> int:
        """The bank of depthwise weights."""
        return self.weight_bank + self.array.channels

    @property
    def bias_bank(self) -> int:
        """The bank of biases, of convolutions and of depthwise ones."""
        return self.depthwise_bank + 1

    @property
    def banks(self) -> int:
        """All banks."""
        return self.bias_bank + 1

    def bank_name(self, bank: int) -> str:
        """Return a bank's name for a reader: "VB0.3" is the fourth of the first map group."""
        if bank < self.map_banks:
            return f"VB{bank // self.array.rows}.{bank % self.array.rows}"
        if bank < self.depthwise_bank:
            return f"CONVW.{bank - self.weight_bank}"
        return {self.depthwise_bank: "DWCONVW", self.bias_bank: "BIAS"}.get(bank, f"bank {bank}")


def shape_of(fingerprint: int) -> Shape:
    """The core's shape by a fingerprint's bits: 55 to 48 ISA, 25 and 24 map groups, 11 to 8 rows of
    MISC, 3 to 0 the array (AMD's target_factory, Apache-2.0).

    Raises
    ------
    UnsupportedError
        It is another DPU's, or of an unknown size or instruction set.
    """
    array = array_of(fingerprint)
    isa, groups, rows = ISAS.get(fingerprint >> 48 & 0xFF), fingerprint >> 24 & 3, fingerprint >> 8
    if isa is None or not groups or not rows & 0xF:
        raise UnsupportedError(f"the instruction set of {describe(fingerprint)} is not known")
    return Shape(isa, array, groups, rows & 0xF)


class Watch(Protocol):
    """Receives every access, by flat number of a bank's row or byte of a register."""

    def bank(self, rows: Array, writes: bool) -> None:
        """Rows of banks, as bank * BANK_DEPTH + row; any shape."""
        ...

    def ddr(self, register: int, offsets: Array, count: int, writes: bool) -> None:
        """`count` bytes from each offset of a register."""
        ...


class Machine:
    """Banks and DDR.

    Parameters
    ----------
    shape : of the core
    registers : the DDR's registers, int8 arrays [bytes] that are read and written in place

    Attributes
    ----------
    banks : int8 [bank, row, channel]
    watch : receives every access while it is set
    """

    def __init__(self, shape: Shape, registers: Mapping[int, Array]) -> None:
        self.shape = shape
        self.registers = dict(registers)
        self.banks = np.zeros((shape.banks, BANK_DEPTH, shape.width), np.int8)
        self.watch: Watch | None = None

    def read(self, banks: Array | int, rows: Array) -> Array:
        """Return rows of banks, int8 [..., width]; the arguments are broadcast, rows wrap.

        Raises
        ------
        IsaError
            There is no such bank.
        """
        rows = rows % BANK_DEPTH
        try:
            values = self.banks[banks, rows]
        except IndexError:
            raise self._no_bank(banks) from None
        if self.watch is not None:
            self.watch.bank(np.asarray(banks) * BANK_DEPTH + rows, False)
        return values

    def write(self, banks: Array | int, rows: Array, values: Array) -> None:
        """Write rows of banks, int8 [..., width].

        Raises
        ------
        IsaError
            There is no such bank.
        """
        rows = rows % BANK_DEPTH
        try:
            self.banks[banks, rows] = values
        except IndexError:
            raise self._no_bank(banks) from None
        if self.watch is not None:
            self.watch.bank(np.asarray(banks) * BANK_DEPTH + rows, True)

    def _no_bank(self, banks: Array | int) -> IsaError:
        return IsaError(f"bank {int(np.max(banks))}: this DPU has {self.shape.banks}")

    def load(self, register: int, offsets: Array, count: int) -> Array:
        """Return bytes of the DDR, int8 [len(offsets), count].

        Raises
        ------
        IsaError
            They are not all in the register.
        """
        memory = self._register(register, offsets, count)
        if self.watch is not None:
            self.watch.ddr(register, offsets, count, False)
        return memory[offsets[:, None] + np.arange(count)]

    def save(self, register: int, offsets: Array, values: Array) -> None:
        """Write bytes of the DDR, int8 [len(offsets), count].

        Raises
        ------
        IsaError
            They are not all in the register.
        """
        count = values.shape[1]
        memory = self._register(register, offsets, count)
        if self.watch is not None:
            self.watch.ddr(register, offsets, count, True)
        memory[offsets[:, None] + np.arange(count)] = values

    def _register(self, register: int, offsets: Array, count: int) -> Array:
        memory = self.registers.get(register)
        if memory is None:
            raise IsaError(f"register {register} has no memory")
        if not len(offsets):  # all of a pixel may be padding
            return memory
        first, last = int(offsets.min()), int(offsets.max()) + count
        if first < 0 or last > len(memory):
            raise IsaError(
                f"bytes {first} to {last} of register {register}, which has {len(memory)}"
            )
        return memory
