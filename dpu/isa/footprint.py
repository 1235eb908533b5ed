"""Memory that an ISA1 instruction reads and writes, from its fields alone, without executing it.

Bank rows are given as rectangles, banks times consecutive rows. If an instruction leaves gaps
between pixels, as for a part of a concat, the rectangle includes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.executor import Settings, window_of
from tutelage.dpu.isa.formats import IsaError
from tutelage.dpu.isa.machine import Shape
from tutelage.dpu.isa.windows import Window
from tutelage.dpu.ops.limits import BANK_DEPTH

WEIGHT_MODES = (0, 1, 6, 8)
"""Values of ALU's `exec_mode` that read the depthwise bank."""

DEPTHWISE = 0
"""Value of ALU's `exec_mode` that reads the bias bank."""


@dataclass(frozen=True)
class Rectangle:
    """A block of adjacent rows in adjacent banks.

    Attributes
    ----------
    banks, rows : first and last + 1
    """

    banks: tuple[int, int]
    rows: tuple[int, int]


@dataclass(frozen=True)
class Pixels:
    """Bytes of the DDR: `count` blocks of `size` bytes, whose starts are `jump` bytes apart."""

    register: int
    start: int
    count: int
    jump: int
    size: int


@dataclass(frozen=True)
class Footprint:
    """The bank rows that an instruction reads and writes, and its access to the DDR, if any."""

    reads: list[Rectangle]
    writes: list[Rectangle]
    ddr: Pixels | None = None


def footprint(i: Instruction, settings: Settings, shape: Shape) -> Footprint:
    """Return the memory that an instruction reads and writes.

    Parameters
    ----------
    settings : current INITs; updated by an INIT, and by an ELEW, which consumes its operands

    Raises
    ------
    IsaError
        An INIT is missing, or the instruction is not part of ISA1.
    """
    name = i.name
    if name == "LOAD":
        words = -(-i.channel // shape.width)
        rows = _rows(i.bank_id, 1, i.bank_addr, (i.length - 1) * i.jump_write + words)
        return Footprint([], rows, None if i.broadcast else _pixels(i, i.jump_read))
    if name == "SAVE":
        words = -(-i.channel // shape.width)
        rows = _rows(i.bank_id, 1, i.bank_addr, (i.length - 1) * i.jump_read + words)
        return Footprint(rows, [], _pixels(i, i.jump_write))
    if name == "CONV":
        return _conv(i, settings, shape)
    if name == "ALU":
        return _alu(i, settings, shape)
    if name == "ELEW":
        return _elew(i, settings, shape)
    if name == "ELEWINIT":
        settings.operands.append(i)
    elif name.endswith("INIT"):
        settings.inits[name] = i
    elif name != "END":
        raise IsaError(f"{name} is not an instruction of ISA1")
    return Footprint([], [])


def _pixels(i: Instruction, jump: int) -> Pixels:
    """Return the DDR access; overlapping pixels are one block, which may exceed the register."""
    if jump <= i.channel:
        return Pixels(i.reg_id, i.ddr_addr, 1, 1, (i.length - 1) * jump + i.channel)
    return Pixels(i.reg_id, i.ddr_addr, i.length, jump, i.channel)


def _conv(i: Instruction, settings: Settings, shape: Shape) -> Footprint:
    init = settings.of("CONVINIT")
    window = window_of(i, init)
    taps = init.kernel_h * init.kernel_w * i.channel_group
    reads = list(_window(window, shape))
    reads += _rows(shape.weight_bank, shape.array.channels, i.bank_addr_weights, taps)
    reads += _rows(shape.bias_bank, 1, i.bank_addr_bias, 1)
    return Footprint(reads, list(_result(i, init, i.length, 1, shape)))


def _alu(i: Instruction, settings: Settings, shape: Shape) -> Footprint:
    init = settings.of("ALUINIT")
    window = window_of(i, init)
    reads = list(_window(window, shape))
    if init.exec_mode in WEIGHT_MODES:
        taps = init.kernel_h * init.kernel_w
        words = max(0, taps - 1) * init.jump_read_weights + window.groups
        words *= 2 if init.exec_mode == 8 else 1
        reads += _rows(shape.depthwise_bank, 1, i.bank_addr_weights, words)
    if init.exec_mode == DEPTHWISE:
        reads += _rows(shape.bias_bank, 1, i.bank_addr_bias, window.groups)
    return Footprint(reads, list(_result(i, init, init.length, window.groups, shape)))


def _window(window: Window, shape: Shape) -> Iterator[Rectangle]:
    """Yield the window's rows, by address and by the rows that share a bank, bank by bank."""
    height, width = window.inside
    if height.stop <= height.start or width.stop <= width.start:
        return
    size, stride = shape.array.rows, window.stride[0]
    first = window.bank // size * size
    columns = (width.stop - 1 - width.start) * window.jumps[1] + window.groups
    for within in range(stride):
        # Rows with this offset among those that share a bank, starting with the window's first row.
        row = height.start + (within - window.offset - height.start) % stride
        steps = [(window.offset + r) // stride for r in (row, height.stop - 1)]
        if (window.offset + height.stop - 1) % stride < within:
            steps[1] -= 1
        at, last = window.bank - first + steps[0], window.bank - first + steps[1]
        while at <= last:
            number, bank = divmod(at, size)
            count = min(size - bank, last - at + 1)
            if number >= len(window.addresses):
                raise IsaError(f"{window.rows} rows from bank {window.bank} exceed the addresses")
            start = window.addresses[number] + within * window.jumps[0]
            start += width.start * window.jumps[1]
            yield from _rows(first + bank, count, start, columns)
            at += count


def _result(
    i: Instruction, init: Instruction, length: int, groups: int, shape: Shape
) -> Iterator[Rectangle]:
    """Yield the rows that CONV or ALU writes, grouped by rows that share a bank."""
    vpp = i.vpp if i.name == "ALU" else init.vpp
    size, stride = shape.array.rows, init.stride_out
    first = i.bank_id_out // size * size
    columns = (length - 1) * init.jump_write + groups
    for within in range(stride):
        rows = range((within - init.stride_offset_out) % stride, vpp, stride)
        if not rows:
            continue
        at = i.bank_id_out - first + (rows[0] + init.stride_offset_out) // stride
        last = at + len(rows) - 1
        while at <= last:
            passed, bank = divmod(at, size)
            count = min(size - bank, last - at + 1)
            start = i.bank_addr_out + (passed * stride + within) * init.jump_write_endl
            yield from _rows(first + bank, count, start, columns)
            at += count


def _elew(i: Instruction, settings: Settings, shape: Shape) -> Footprint:
    operands = sorted(settings.operands, key=lambda operand: operand.id)
    settings.operands = operands[i.num :]
    reads: list[Rectangle] = []
    for operand in operands[: i.num]:
        columns = (i.length - 1) * operand.jump_read + i.channel_group
        step = 0 if operand.share_pp else operand.jump_bank
        for row in range(i.vpp):
            reads += _elew_row(operand, operand.bank_id_in, operand.bank_addr_in, row * step,
                               operand.jump_read_endl, columns, shape)  # fmt: skip
    columns = (i.length - 1) * i.jump_write + i.channel_group
    writes: list[Rectangle] = []
    for row in range(i.vpp):
        writes += _elew_row(i, i.bank_id_out, i.bank_addr_out, row, i.jump_write_endl, columns,
                            shape)  # fmt: skip
    return Footprint(reads, writes)


def _elew_row(
    i: Instruction, bank: int, address: int, step: int, jump: int, columns: int, shape: Shape
) -> list[Rectangle]:
    size = shape.array.rows
    first = bank // size * size
    passed, within = divmod(bank - first + step, size)
    return _rows(first + within, 1, address + passed * jump, columns)


def _rows(bank: int, banks: int, first: int, count: int) -> list[Rectangle]:
    """Return a rectangle, split in two if it wraps around to the start of the banks."""
    first %= BANK_DEPTH
    end = first + min(count, BANK_DEPTH)
    found = [Rectangle((bank, bank + banks), (first, min(end, BANK_DEPTH)))]
    if end > BANK_DEPTH:
        found.append(Rectangle((bank, bank + banks), (0, end - BANK_DEPTH)))
    return found
