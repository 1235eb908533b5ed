"""The state that instructions change: banks on the chip and registers of the DDR.

On-chip memory consists of banks of 2,048 rows; a row has a byte for each of `width` channels of one
pixel. Banks are numbered consecutively: the groups for feature maps, the convolution weights (one
bank per output channel), the depthwise weights, the biases. A DDR address is a byte offset into one
of eight registers.
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
"""Number of base registers of the DDR."""


@dataclass(frozen=True)
class Shape:
    """The core of a DPU, as described by its fingerprint.

    Attributes
    ----------
    isa : instruction set
    array : rows and channels that CONV computes in parallel
    groups : number of map groups, each of `array.rows` banks
    alu_rows : rows that MISC computes in parallel
    """

    isa: Isa
    array: DpuArray
    groups: int
    alu_rows: int

    @property
    def width(self) -> int:
        """Bytes of a bank's row: consecutive channels."""
        return self.array.channels

    @property
    def map_banks(self) -> int:
        """Number of banks for feature maps, which come first."""
        return self.groups * self.array.rows

    @property
    def weight_bank(self) -> int:
        """The first of `array.channels` banks of convolution weights."""
        return self.map_banks

    @property
    def depthwise_bank(self) -> int:
        """The bank of depthwise weights."""
        return self.weight_bank + self.array.channels

    @property
    def bias_bank(self) -> int:
        """The bank of biases of convolutions and depthwise convolutions."""
        return self.depthwise_bank + 1

    @property
    def banks(self) -> int:
        """Number of banks."""
        return self.bias_bank + 1

    def bank_name(self, bank: int) -> str:
        """Return a bank's display name: "VB0.3" is the fourth bank of the first map group."""
        if bank < self.map_banks:
            return f"VB{bank // self.array.rows}.{bank % self.array.rows}"
        if bank < self.depthwise_bank:
            return f"CONVW.{bank - self.weight_bank}"
        return {self.depthwise_bank: "DWCONVW", self.bias_bank: "BIAS"}.get(bank, f"bank {bank}")


def shape_of(fingerprint: int) -> Shape:
    """Return the core's shape from a fingerprint.

    Its bits are: 55 to 48 ISA, 25 and 24 map groups, 11 to 8 rows of MISC, 3 to 0 the array (AMD's
    target_factory, Apache-2.0).

    Raises
    ------
    UnsupportedError
        It belongs to another DPU, or has an unknown size or instruction set.
    """
    array = array_of(fingerprint)
    isa, groups, rows = ISAS.get(fingerprint >> 48 & 0xFF), fingerprint >> 24 & 3, fingerprint >> 8
    if isa is None or not groups or not rows & 0xF:
        raise UnsupportedError(f"the instruction set of {describe(fingerprint)} is unknown")
    return Shape(isa, array, groups, rows & 0xF)


class Watch(Protocol):
    """Observer of every access, by flat index of a bank row or byte offset in a register."""

    def bank(self, rows: Array, writes: bool) -> None:
        """Handle an access to rows of banks, as bank * BANK_DEPTH + row; any shape."""
        ...

    def ddr(self, register: int, offsets: Array, count: int, writes: bool) -> None:
        """Handle an access to `count` bytes from each offset of a register."""
        ...


class Machine:
    """The banks and the DDR.

    Parameters
    ----------
    shape : shape of the core
    registers : the DDR's registers, int8 arrays [bytes], which are read and written in place

    Attributes
    ----------
    banks : int8 [bank, row, channel]
    watch : observer of every access, None for none
    """

    def __init__(self, shape: Shape, registers: Mapping[int, Array]) -> None:
        self.shape = shape
        self.registers = dict(registers)
        self.banks = np.zeros((shape.banks, BANK_DEPTH, shape.width), np.int8)
        self.watch: Watch | None = None

    def read(self, banks: Array | int, rows: Array) -> Array:
        """Return rows of banks, int8 [..., width]; arguments are broadcast, row numbers wrap.

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
        bank = int(np.max(banks))
        return IsaError(f"bank {bank} does not exist; this DPU has {self.shape.banks} banks")

    def load(self, register: int, offsets: Array, count: int) -> Array:
        """Return bytes of the DDR, int8 [len(offsets), count].

        Raises
        ------
        IsaError
            Some of them are outside the register.
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
            Some of them are outside the register.
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
        if not len(offsets):  # a pixel may consist of padding only
            return memory
        first, last = int(offsets.min()), int(offsets.max()) + count
        if first < 0 or last > len(memory):
            raise IsaError(
                f"bytes {first} to {last} exceed register {register} of {len(memory)} bytes"
            )
        return memory
