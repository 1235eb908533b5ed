"""Execution of instructions: one function each, by its name in `EXECUTE`.

Sums are exact in float64; results are rounded half up and saturated once, as on the DPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from tutelage.core.fixed_point import INT8_MAX, INT8_MIN, RELU6_HIGHEST, Array, pool_reciprocal
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.formats import IsaError
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.isa.windows import Rows, Window, check_row, group_of, patches
from tutelage.dpu.ops.limits import BANK_DEPTH

LEAKY_SLOPE = 26 / 256
"""Slope of CONV's leaky ReLU."""

AUGMENTED_CHANNEL = 64
"""Most bytes that a LOAD writes to one pixel of an augmented first layer."""


@dataclass
class Settings:
    """The current INITs of CONVs and MISC's instructions.

    Attributes
    ----------
    inits : the last INIT of each kind
    operands : ELEWINITs that no ELEW has consumed yet
    """

    inits: dict[str, Instruction] = field(default_factory=dict)
    operands: list[Instruction] = field(default_factory=list)

    def of(self, name: str) -> Instruction:
        """Return the current INIT of this name.

        Raises
        ------
        IsaError
            There was none before.
        """
        try:
            return self.inits[name]
        except KeyError:
            raise IsaError(f"there is no preceding {name}") from None


def execute(instruction: Instruction, machine: Machine, settings: Settings) -> None:
    """Execute one instruction.

    Raises
    ------
    IsaError
        It accesses memory outside a bank or a register, lacks a preceding INIT, or has an invalid
        field.
    """
    EXECUTE[instruction.name](instruction, machine, settings)


def execute_at(
    code: Sequence[Instruction], place: int, machine: Machine, settings: Settings
) -> None:
    """Execute the instruction at index `place` of the code.

    Raises
    ------
    IsaError
        As for `execute`; the message names the instruction.
    """
    try:
        execute(code[place], machine, settings)
    except IsaError as error:
        raise IsaError(f"instruction {place} ({code[place].name}): {error}") from error


# -- DDR ---------------------------------------------------------------------------------------


def _load(i: Instruction, machine: Machine, _: Settings) -> None:
    """Copy `length` pixels of `channel` bytes to the rows of a bank."""
    length, channel, width = i.length, i.channel, machine.shape.width
    offsets = i.ddr_addr + np.arange(length) * i.jump_read
    words = -(-channel // width)
    pixels = np.zeros((length, words * width), np.int8)
    if i.values.get("broadcast"):
        pixels[:, :channel] = np.uint8(i.const_value).astype(np.int8)
    elif i.jump_read <= channel <= AUGMENTED_CHANNEL and (i.pad_start or i.pad_end):
        _load_overlapping(i, machine, offsets, pixels)
    else:
        pixels[:, :channel] = machine.load(i.reg_id, offsets, channel)
    rows = i.bank_addr + np.arange(length)[:, None] * i.jump_write + np.arange(words)
    machine.write(i.bank_id, rows, pixels.reshape(length, words, width))


def _load_overlapping(i: Instruction, machine: Machine, offsets: Array, pixels: Array) -> None:
    """Load the augmented first layer: pixels overlap, and the area beside the image is 0.

    The last pixels may extend beyond the register, where nothing is read.
    """
    length, size = pixels.shape
    starts = np.maximum(0, i.pad_start - np.arange(length) * i.jump_read)
    ends = np.full(length, i.channel)
    last = min(i.pad_idx, length)
    ends[length - last :] = np.minimum(
        i.channel, size - (i.pad_end + np.arange(last) * i.jump_read)
    )
    places = np.arange(i.channel)
    taken = (places >= starts[:, None]) & (places < ends[:, None])
    rows, columns = np.nonzero(taken)
    pixels[rows, columns] = machine.load(i.reg_id, offsets[rows] + columns, 1)[:, 0]


def _save(i: Instruction, machine: Machine, _: Settings) -> None:
    """Copy rows of a bank to `length` pixels of `channel` bytes."""
    length, channel, width = i.length, i.channel, machine.shape.width
    words = -(-channel // width)
    rows = i.bank_addr + np.arange(length)[:, None] * i.jump_read + np.arange(words)
    pixels = machine.read(i.bank_id, rows).reshape(length, -1)[:, :channel]
    offsets = i.ddr_addr + np.arange(length) * i.jump_write
    if i.values.get("const_en"):
        pixels = np.full_like(pixels, np.uint8(i.const_value).astype(np.int8))
    if i.values.get("argmax", 0) & 2:
        best = pixels.argmax(1)[:, None]
        pixels = np.take_along_axis(pixels, best, 1) if i.argmax & 1 else best.astype(np.int8)
    machine.save(i.reg_id, offsets, pixels)


def _end(_: Instruction, __: Machine, ___: Settings) -> None:
    """Do nothing: END only takes and gives tokens."""


def _keep(i: Instruction, _: Machine, settings: Settings) -> None:
    """Keep an INIT, which applies until the next one."""
    settings.inits[i.name] = i


def _both(i: Instruction, init: Instruction) -> SimpleNamespace:
    """Return the fields of an instruction and its INIT; the ISA assigns each field to one."""
    return SimpleNamespace(**vars(init) | vars(i))


def window_of(i: Instruction, init: Instruction, kernel: tuple[int, int] | None = None) -> Window:
    """Return the window that an instruction reads; `kernel` overrides that of its INIT."""
    f = _both(i, init)
    return Window(
        f.bank_id_in,
        (f.bank_addr_in, f.bank_addr_in_1, f.bank_addr_in_2, f.bank_addr_in_3),
        f.stride_offset_in,
        (f.jump_read_endl, f.jump_read),
        f.vpp,
        f.length,
        kernel or (f.kernel_h, f.kernel_w),
        (f.stride_h, f.stride_w),
        (f.pad_top, f.pad_bottom, f.pad_left, f.pad_right),
        f.channel_group,
        getattr(f, "channel_offset", 0),  # POOL lacks it
    )


def _write(machine: Machine, i: Instruction, init: Instruction, result: Array) -> None:
    """Write int8 [vpp, outputs, channels] to the rows given by an instruction and its INIT."""
    f = _both(i, init)
    jumps = (f.jump_write_endl, f.jump_write)
    rows = Rows(f.bank_id_out, f.bank_addr_out, f.stride_out, f.stride_offset_out, jumps)
    rows.write(machine, result)


# -- the array ---------------------------------------------------------------------------------


def _conv(i: Instruction, machine: Machine, settings: Settings) -> None:
    """Compute `vpp` rows of `length` columns of one output channel group from all inputs."""
    init, shape = settings.of("CONVINIT"), machine.shape
    window = window_of(i, init)
    taps = init.kernel_h * init.kernel_w * i.channel_group
    if taps > BANK_DEPTH:
        raise IsaError(f"weights take {taps} rows; a bank has {BANK_DEPTH}")
    outputs = np.arange(shape.array.channels)
    weights = machine.read(
        shape.weight_bank + outputs[:, None], i.bank_addr_weights + np.arange(taps)
    )
    bias = machine.read(shape.bias_bank, np.array(i.bank_addr_bias))
    values = patches(window.read(machine), window)
    matrix = values.reshape(init.vpp * i.length, -1).astype(np.float64)
    sums = matrix @ weights.reshape(len(outputs), -1).T.astype(np.float64)
    result = _activate(_scaled(sums, bias, init.shift_bias, init.shift_cut), init.act_type)
    _write(machine, i, init, _rounded(result).reshape(init.vpp, i.length, -1))


def _scaled(sums: Array, bias: Array, shift_bias: int, shift_cut: int) -> Array:
    """Return (2 sum + bias 2^shift_bias) / 2^(shift_cut + 1), exact in float64."""
    return np.asarray((2 * sums + bias * 2.0**shift_bias) * 2.0 ** -(shift_cut + 1))


def _activate(values: Array, act_type: int) -> Array:
    """Apply an activation, before the result is rounded.

    Raises
    ------
    IsaError
        There is no activation with this number.
    """
    if act_type == 0:
        return values
    if act_type == 1:
        return np.maximum(values, 0)
    if act_type == 3:
        return np.where(values < 0, values * LEAKY_SLOPE, values)
    if act_type == 4:
        return np.clip(values, 0, RELU6_HIGHEST)
    raise IsaError(f"activation {act_type} is not one of 0, 1, 3 and 4")


def _rounded(values: Array) -> Array:
    """Return values rounded half up and saturated to int8."""
    return np.clip(np.floor(values + 0.5), INT8_MIN, INT8_MAX).astype(np.int8)


# -- pools, depthwise convolutions and functions of one value ------------------------------------


def _alu(i: Instruction, machine: Machine, settings: Settings) -> None:
    """Compute one of the modes of ISA1's MISC on `vpp` rows and all channel groups."""
    init = settings.of("ALUINIT")
    window = window_of(i, init)
    mode = MODES.get(init.exec_mode)
    if mode is None:
        raise IsaError(f"ALU mode {init.exec_mode} is unknown")
    result = mode(i, init, machine, window)
    _write(machine, i, init, _rounded(result))


def _gain(shift_cut: int) -> float:
    """Return 2^t of pools, whose shift_cut has its sign in bit 3."""
    return float(2.0 ** (8 - shift_cut if shift_cut >= 8 else shift_cut))


def _taps(machine: Machine, window: Window, address: int, step: int) -> Array:
    """Return depthwise weights, float64 [kernel_h, kernel_w, channels]."""
    taps = np.arange(window.kernel[0] * window.kernel[1])[:, None] * step
    rows = address + taps + np.arange(window.groups)
    found = machine.read(machine.shape.depthwise_bank, rows)
    return found.reshape(*window.kernel, -1).astype(np.float64)


def _weighted(window: Window, values: Array, taps: Array) -> Array:
    """Return the sums of a depthwise convolution, [vpp, outputs, channels]."""
    sums = np.zeros((window.vpp, window.outputs, values.shape[2]))
    view = patches(values, window)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            sums += view[:, :, row, column] * taps[row, column]
    return sums


def _depthwise(i: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    taps = _taps(machine, window, i.bank_addr_weights, init.jump_read_weights)
    sums = _weighted(window, window.read(machine), taps)
    bias = machine.read(
        machine.shape.bias_bank, i.bank_addr_bias + np.arange(window.groups)
    ).reshape(-1)
    return _activate(_scaled(sums, bias, init.shift_bias, init.shift_cut), init.act_type)


def _depthwise_without_bias(
    i: Instruction, init: Instruction, machine: Machine, window: Window
) -> Array:
    taps = _taps(machine, window, i.bank_addr_weights, init.jump_read_weights)
    sums = _weighted(window, window.read(machine), taps)
    return _activate(sums * 2.0**-init.shift_cut, init.act_type)


def _depthwise_wide(i: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    """Compute with 16-bit weights shared by the channels of a group: low bytes, then high bytes, in
    two rows per tap. Source: AMD's sources; not found in any file."""
    taps = np.arange(window.kernel[0] * window.kernel[1])[:, None] * 2 * init.jump_read_weights
    rows = i.bank_addr_weights + taps + 2 * np.arange(window.groups)
    low = machine.read(machine.shape.depthwise_bank, rows).view(np.uint8).astype(np.float64)
    high = machine.read(machine.shape.depthwise_bank, rows + 1).astype(np.float64)
    weights = (high * 256 + low).reshape(*window.kernel, -1)
    return _weighted(window, window.read(machine), weights) * 2.0**-init.shift_cut


def _average(_: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    factor = init.multi_factor - 256 * (init.multi_factor >> 7)  # signed
    sums = patches(window.read(machine), window).sum((2, 3), dtype=np.float64)
    return np.asarray(sums * factor * _gain(init.shift_cut))


def _maximum(_: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    highest = patches(window.read(machine, INT8_MIN), window).max((2, 3))
    return highest.astype(np.float64) * _gain(init.shift_cut)


def _exponent(shift: int) -> float:
    """Return 2^p of a shift whose sign is bit 5."""
    return float(2.0 ** (32 - shift if shift >= 32 else shift))


def _sloped(values: Array, slope: Array | int, init: Instruction) -> Array:
    """Return the PReLU or leaky ReLU of ISA1's MISC."""
    positive = values * _exponent(init.shift_prelu_p)
    return np.where(values < 0, values * slope * _exponent(init.shift_prelu_n), positive)


def _values(window: Window, machine: Machine) -> Array:
    """Return the values under a 1x1 kernel, float64 [vpp, outputs, channels]."""
    if window.kernel != (1, 1):
        raise IsaError(f"kernel {window.kernel[0]}x{window.kernel[1]}; it must be 1x1")
    return patches(window.read(machine), window)[:, :, 0, 0].astype(np.float64)


def _prelu(i: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    slopes = machine.read(
        machine.shape.depthwise_bank, i.bank_addr_weights + np.arange(window.groups)
    ).reshape(-1)
    return _sloped(_values(window, machine), slopes, init)


def _leaky(_: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    return _sloped(_values(window, machine), init.multi_factor, init)


def _hard_sigmoid(_: Instruction, init: Instruction, machine: Machine, window: Window) -> Array:
    """Return min(2^32, max(0, 2731 x + 3 * 2731 * 2^shift_bias)) / 2^shift_cut."""
    line = 2731 * _values(window, machine) + 3 * 2731 * 2.0**init.shift_bias
    return np.asarray(np.clip(line, 0, 2.0**32) * 2.0**-init.shift_cut)


MODES: dict[int, Callable[[Instruction, Instruction, Machine, Window], Array]] = {
    0: _depthwise,
    1: _prelu,
    2: _average,
    3: _maximum,
    4: _leaky,
    5: _maximum,
    6: _depthwise_without_bias,
    7: _hard_sigmoid,
    8: _depthwise_wide,
}
"""Functions of ALU by exec_mode."""


# -- ISA0's MISC -----------------------------------------------------------------------------


def _pool(i: Instruction, machine: Machine, settings: Settings) -> None:
    """Compute ISA0's maximum or average; type 2 is a maximum over the instruction's window."""
    init = settings.of("POOLINIT")
    kernel = (init.kernel_h, init.kernel_w)
    if init.pool_type == 2:
        kernel = (i.global_kernel_h, i.global_kernel_w)
    window = window_of(i, init, kernel)
    if init.pool_type == 1:
        factor = 1 / (kernel[0] * kernel[1])
        if kernel[1] in _POOL_WIDTHS:
            numerator, shift = pool_reciprocal(kernel[1], kernel[1])
            factor = numerator * 2.0**-shift
        result = patches(window.read(machine), window).sum((2, 3), dtype=np.float64) * factor
    else:
        highest = patches(window.read(machine, INT8_MIN), window).max((2, 3))
        result = highest.astype(np.float64)
    _write(machine, i, init, _rounded(result * _gain(init.shift_cut)))


_POOL_WIDTHS = (3, 5, 6, 7)
"""Widths of windows that have a reciprocal in ISA0, by width alone; others use 1 / area."""


def _dptwise(i: Instruction, machine: Machine, settings: Settings) -> None:
    """Compute ISA0's depthwise convolution."""
    init = settings.of("DWINIT")
    window = window_of(i, init)
    taps = _taps(machine, window, i.bank_addr_weights, window.groups)
    sums = _weighted(window, window.read(machine), taps)
    bias = machine.read(
        machine.shape.bias_bank, i.bank_addr_bias + np.arange(window.groups)
    ).reshape(-1)
    result = _activate(_scaled(sums, bias, init.shift_bias, init.shift_cut), i.act_type)
    _write(machine, i, init, _rounded(result))


# -- sums and products -------------------------------------------------------------------------


def _elewinit(i: Instruction, _: Machine, settings: Settings) -> None:
    """Add an operand for the next ELEW."""
    settings.operands.append(i)


def _elew(i: Instruction, machine: Machine, settings: Settings) -> None:
    """Compute the sum or product of up to four maps; with one map, a requantised copy."""
    operands = sorted(settings.operands, key=lambda operand: operand.id)
    if len(operands) < i.num:
        raise IsaError(f"ELEW needs {i.num} operands, but {len(operands)} ELEWINITs precede it")
    settings.operands = operands[i.num :]
    values = [_operand(operand, i, machine) for operand in operands[: i.num]]
    product = i.values.get("elew_type", 0)
    if product > 1:
        raise IsaError(f"ELEW type {product} is neither 0 (sum) nor 1 (product)")
    sign = 16 if i.form.by_name["shift_write"].width == 5 else 8
    shift = i.shift_write if i.shift_write < sign else sign - i.shift_write
    total = np.prod(values, 0) if product else np.sum(values, 0)
    result = total * 2.0**shift / 4 ** (len(values) if product else 1)
    if i.act_type:
        result = np.maximum(result, 0)
    _write_elew(i, machine, _rounded(result))


def _operand(operand: Instruction, i: Instruction, machine: Machine) -> Array:
    """Return floor(4 x / 2^shift_read), float64 [rows, columns, channels]."""
    check_row(i.length, i.channel_group)
    shared = operand.values.get("share_pp", 0)
    step = 0 if shared else operand.values.get("jump_bank", 1)
    banks, starts = _elew_rows(
        operand.bank_id_in, operand.bank_addr_in, operand.jump_read_endl, step, i.vpp, machine
    )
    pixels = np.arange(i.length)[:, None] * operand.jump_read + np.arange(i.channel_group)
    found = machine.read(banks[:, None, None], starts[:, None, None] + pixels)
    values = found.reshape(i.vpp, i.length, -1).astype(np.float64)
    return np.floor(4 * values * 2.0**-operand.shift_read)


def _write_elew(i: Instruction, machine: Machine, values: Array) -> None:
    banks, starts = _elew_rows(i.bank_id_out, i.bank_addr_out, i.jump_write_endl, 1, i.vpp, machine)
    pixels = np.arange(i.length)[:, None] * i.jump_write + np.arange(i.channel_group)
    shape = (i.vpp, i.length, i.channel_group, machine.shape.width)
    machine.write(banks[:, None, None], starts[:, None, None] + pixels, values.reshape(shape))


def _elew_rows(
    bank: int, address: int, jump: int, step: int, vpp: int, machine: Machine
) -> tuple[Array, Array]:
    """Return bank and address of consecutive rows."""
    first, size = group_of(bank, machine)
    passed, within = np.divmod(bank - first + np.arange(vpp) * step, size)
    return first + within, address + passed * jump


EXECUTE: dict[str, Callable[[Instruction, Machine, Settings], None]] = {
    "LOAD": _load,
    "SAVE": _save,
    "END": _end,
    "CONV": _conv,
    "CONVINIT": _keep,
    "ALU": _alu,
    "ALUINIT": _keep,
    "POOL": _pool,
    "POOLINIT": _keep,
    "DPTWISE": _dptwise,
    "DWINIT": _keep,
    "ELEW": _elew,
    "ELEWINIT": _elewinit,
}
"""Functions by name of the instruction."""
