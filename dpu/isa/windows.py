"""Feature maps in banks: the windows that instructions read and the rows they write.

A map is stored in one group of banks. Its rows are distributed over the group's banks, `stride`
adjacent rows to each, so that the rows that the array needs at once are in different banks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.formats import IsaError
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.ops.limits import BANK_DEPTH

MOST_PRODUCTS = 1 << 31
"""Most values under kernels per instruction. More take minutes to emulate, and no known file has
as many: a pool of 64x64 pixels over a bank's row has a quarter."""


@dataclass(frozen=True)
class Window:
    """Input of CONV, ALU, POOL and DPTWISE: `outputs` positions of a kernel on each of `vpp` rows.

    Attributes
    ----------
    bank : bank of the first row
    addresses : address of that row in its bank, and the addresses used after each wrap-around
        past the group's last bank
    offset : index of the first row among the `stride[0]` rows that share a bank
    jumps : distance between rows in a bank, and between pixels
    vpp, outputs : rows and columns of the result
    kernel, stride : height and width
    pads : top, bottom, left, right. The second and the fourth are the numbers of rows and columns
        present after the first one of the last window; beyond them is padding
    groups : number of groups of `width` channels
    missing : number of padding channels at the end of the last group
    """

    bank: int
    addresses: tuple[int, int, int, int]
    offset: int
    jumps: tuple[int, int]
    vpp: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    missing: int

    @property
    def rows(self) -> int:
        """Number of rows read."""
        return (self.vpp - 1) * self.stride[0] + self.kernel[0]

    @property
    def columns(self) -> int:
        """Number of columns read."""
        return (self.outputs - 1) * self.stride[1] + self.kernel[1]

    @property
    def inside(self) -> tuple[slice, slice]:
        """Ranges of rows and columns that are not padding."""
        top, bottom, left, right = self.pads
        return (
            slice(top, max(top, min(self.rows, self.rows - self.kernel[0] + bottom + 1))),
            slice(left, max(left, min(self.columns, self.columns - self.kernel[1] + right + 1))),
        )

    def read(self, machine: Machine, padding: int = 0) -> Array:
        """Return the values, int8 [rows, columns, channels].

        Raises
        ------
        IsaError
            A row that is not padding is beyond the fourth address, a row does not fit into a bank,
            the bank is not for maps, or the window is larger than MOST_PRODUCTS.
        """
        height, width = self.inside
        check_row(width.stop - width.start, self.groups)
        channels = self.groups * machine.shape.width
        products = self.vpp * self.outputs * self.kernel[0] * self.kernel[1] * channels
        if products > MOST_PRODUCTS:
            raise IsaError(f"{products:,} products in one instruction; at most {MOST_PRODUCTS:,}")
        values = np.full((self.rows, self.columns, channels), padding, np.int8)
        banks, starts = self._place(np.arange(height.start, height.stop), machine)
        columns = np.arange(width.start, width.stop) * self.jumps[1]
        pixels = columns[:, None] + np.arange(self.groups)
        found = machine.read(banks[:, None, None], starts[:, None, None] + pixels)
        values[height, width] = found.reshape(len(banks), len(columns), channels)
        if self.missing:
            values[..., -self.missing :] = padding
        return values

    def _place(self, rows: Array, machine: Machine) -> tuple[Array, Array]:
        """Return bank and address of rows, counted from the window's first row."""
        steps, within = np.divmod(self.offset + rows, self.stride[0])
        first, size = group_of(self.bank, machine)
        passed, bank = np.divmod(self.bank - first + steps, size)
        if len(passed) and passed[-1] >= len(self.addresses):
            raise IsaError(
                f"{self.rows} rows from bank {self.bank} need {int(passed[-1]) + 1} addresses"
            )
        return first + bank, np.array(self.addresses)[passed] + within * self.jumps[0]


def check_row(pixels: int, groups: int) -> None:
    """Raise IsaError if a map's row has more channel groups than a bank has rows."""
    if pixels * groups > BANK_DEPTH:
        what = f"{pixels} pixels of {groups} channel groups"
        raise IsaError(f"{what} exceed a bank's {BANK_DEPTH} rows")


def group_of(bank: int, machine: Machine) -> tuple[int, int]:
    """Return the first bank and the size of the map group that a bank belongs to.

    Raises
    ------
    IsaError
        The bank is not for maps.
    """
    size = machine.shape.array.rows
    if not 0 <= bank < machine.shape.map_banks:
        raise IsaError(f"bank {bank} is not one of the {machine.shape.map_banks} for maps")
    return bank // size * size, size


def patches(values: Array, window: Window) -> Array:
    """Return the windows of a kernel, as a view [vpp, outputs, kernel_h, kernel_w, channels]."""
    view = np.lib.stride_tricks.sliding_window_view(values, window.kernel, (0, 1))
    return view[:: window.stride[0], :: window.stride[1]].transpose(0, 1, 3, 4, 2)


@dataclass(frozen=True)
class Rows:
    """Locations that an instruction writes its result to, by row, column and channel group.

    Attributes
    ----------
    bank, address : location of the first row
    stride, offset : number of rows that share a bank for the reader, and index of the first row
    jumps : distance between rows in a bank, and between pixels
    """

    bank: int
    address: int
    stride: int
    offset: int
    jumps: tuple[int, int]

    def write(self, machine: Machine, values: Array) -> None:
        """Write int8 [rows, columns, channels].

        Raises
        ------
        IsaError
            The bank is not for maps.
        """
        height, width, channels = values.shape
        steps, within = np.divmod(np.arange(height) + self.offset, self.stride)
        first, size = group_of(self.bank, machine)
        passed, bank = np.divmod(self.bank - first + steps, size)
        starts = self.address + (passed * self.stride + within) * self.jumps[0]
        groups = channels // machine.shape.width
        pixels = np.arange(width)[:, None] * self.jumps[1] + np.arange(groups)
        machine.write(
            (first + bank)[:, None, None],
            starts[:, None, None] + pixels,
            values.reshape(height, width, groups, machine.shape.width),
        )
