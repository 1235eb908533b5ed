"""Instruction formats of the DPUCZDX8G: a table for ISA1 and one for ISA0.

A field is written `name:word.bit+width`; a trailing `-` means that the word stores the value minus
one. Bits outside all fields are 0. Word 0 of every instruction has the opcode in bits 31 to 28 and
the engines whose tokens it takes and gives (`dpdon`, `dpdby`) in bits 27 to 24 and 23 to 20.

Sources: AMD's vart and target_factory (Apache-2.0), and the code in compiled files, of which these
tables explain every bit.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import cached_property

from tutelage.core.errors import DpuError

WORD_BYTES = 4
OPCODE_BIT = 28


class IsaError(DpuError):
    """DPU code is malformed or impossible to execute; the message gives the location."""


class Engine(enum.IntFlag):
    """The four parallel engines; the values are the bits of dpdon and dpdby."""

    LOAD = 1
    SAVE = 2
    CONV = 4
    MISC = 8

    __hash__ = int.__hash__  # Enum's is slow, and differs from that of the equal integer


ENGINES = (Engine.LOAD, Engine.SAVE, Engine.CONV, Engine.MISC)
# A table, since `&` of flags takes a microsecond and simulations need millions of these.
_ENGINES_OF = tuple(tuple(e for e in ENGINES if bits & e) for bits in range(1 << len(ENGINES)))


def engines_of(bits: int) -> tuple[Engine, ...]:
    """Return the engines of a dpdon or dpdby, in the order of `ENGINES`."""
    return _ENGINES_OF[bits]


@dataclass(frozen=True)
class Field:
    """A bit field.

    Attributes
    ----------
    word, lsb, width : index of the word, lowest bit and number of bits
    less_one : whether the word stores the value minus one
    """

    name: str
    word: int
    lsb: int
    width: int
    less_one: bool = False

    @property
    def lowest(self) -> int:
        """Lowest value."""
        return int(self.less_one)

    @property
    def highest(self) -> int:
        """Highest value."""
        return (1 << self.width) - 1 + self.less_one

    @property
    def mask(self) -> int:
        """Mask of its bits within the word."""
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True)
class Format:
    """The format of one instruction.

    Attributes
    ----------
    opcode : bits 31 to 28 of word 0
    engine : engine that executes it
    words : length, words
    fields : dpdon and dpdby first
    """

    name: str
    opcode: int
    engine: Engine
    words: int
    fields: tuple[Field, ...]

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Fields by name."""
        return {field.name: field for field in self.fields}

    @cached_property
    def masks(self) -> tuple[int, ...]:
        """For each word, the bits that are in use."""
        masks = [0] * self.words
        masks[0] = 0xF << OPCODE_BIT
        for field in self.fields:
            masks[field.word] |= field.mask
        return tuple(masks)


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    Attributes
    ----------
    name : "ISA0" or "ISA1"
    formats : formats of all instructions
    """

    name: str
    formats: tuple[Format, ...]

    @cached_property
    def by_opcode(self) -> dict[int, Format]:
        """Formats by opcode."""
        return {form.opcode: form for form in self.formats}

    @cached_property
    def by_name(self) -> dict[str, Format]:
        """Formats by name."""
        return {form.name: form for form in self.formats}


_FIELD = re.compile(r"(\w+):(\d+)\+(\d+)(-?)")


def _format(name: str, opcode: int, engine: Engine, *words: str) -> Format:
    fields = [Field("dpdon", 0, 24, 4), Field("dpdby", 0, 20, 4)]
    for number, text in enumerate(words):
        for label, lsb, width, less in _FIELD.findall(text):
            fields.append(Field(label, number, int(lsb), int(width), bool(less)))
    return Format(name, opcode, engine, len(words), tuple(fields))


LOAD, SAVE, CONV, MISC = ENGINES

ISA1 = Isa(
    "ISA1",
    (
        _format(
            "LOAD", 0x0, LOAD,
            "bank_addr:0+12 bank_id:14+6",
            "jump_write:0+10- jump_read:10+16-",
            "length:0+10- channel:10+14- pad_idx:27+5-",
            "reg_id:0+3 const_value:8+8 broadcast:16+4 mode_avg:20+2 pad_end:22+5 pad_start:27+5",
            "ddr_addr:0+29",
        ),
        _format(
            "ALUINIT", 0x1, MISC,
            "kernel_w:0+8- kernel_h:8+8- exec_mode:16+4",
            "stride_offset_out:0+8 stride_offset_in:8+8 stride_w:16+8- stride_h:24+8-",
            "length:0+11- channel_offset:11+5 channel_group:16+8- stride_out:24+8-",
            "shift_prelu_n:0+6 shift_cut:6+6 shift_bias:12+6 act_type:18+4 shift_prelu_p:22+6",
            "jump_read_endl:0+13- jump_read:13+10- multi_factor:23+8",
            "jump_write_endl:0+13- jump_write:13+10- jump_read_weights:23+9",
        ),
        _format(
            "ALU", 0x2, MISC,
            "bank_addr_out:0+14 bank_id_out:14+6",
            "bank_addr_in:0+14 bank_id_in:14+6 vpp:20+3- pad_bottom:23+8",
            "bank_addr_in_1:0+14 pad_right:14+8 pad_left:22+4 pad_top:26+4",
            "bank_addr_in_2:0+14 bank_addr_weights:14+14 kernel_d:28+4-",
            "bank_addr_in_3:0+14 bank_addr_bias:14+14",
        ),
        _format(
            "SAVE", 0x4, SAVE,
            "bank_addr:0+12 bank_id:14+6",
            "jump_read:0+10- jump_write:10+16- argmax:27+2 hp_id:29+2",
            "length:0+10- channel:10+12-",
            "reg_id:0+3 const_value:8+8 const_en:16+1",
            "ddr_addr:0+29",
        ),
        _format("END", 0x7, SAVE, ""),
        _format(
            "CONV", 0x8, CONV,
            "bank_addr_in:0+12 pad_top:12+4 pad_left:16+4",
            "bank_addr_out:0+12 pad_bottom:12+4 pad_right:16+4 channel_group:24+8-",
            "bank_addr_weights:0+12 bank_id_in:12+6 length:22+10-",
            "bank_addr_bias:0+12 bank_id_out:12+6 bank_addr_in_1:18+12",
            "bank_addr_in_2:0+12 bank_addr_in_3:12+12 channel_offset:24+5",
        ),
        _format(
            "CONVINIT", 0x9, CONV,
            "jump_read:0+10- shift_cut:10+6 act_type:16+4",
            "jump_read_endl:0+10- shift_bias:10+6 stride_out:28+4-",
            "jump_write:0+10- stride_offset_in:10+3 vpp:13+3- kernel_h:24+4- stride_h:28+4-",
            "jump_write_endl:0+10- stride_offset_out:10+3 kernel_w:24+4- stride_w:28+4-",
        ),
        _format(
            "ELEWINIT", 0xD, MISC,
            "share_pp:13+1 bank_id_in:14+6",
            "bank_addr_in:0+14 jump_read_endl:14+13- id:27+2 jump_bank:29+3-",
            "jump_read:0+12 shift_read:12+4",
        ),
        _format(
            "ELEW", 0xE, MISC,
            "length:0+11- act_type:11+1 elew_type:12+2 bank_id_out:14+6",
            "bank_addr_out:0+14 jump_write_endl:14+13- num:27+2- vpp:29+3-",
            "jump_write:0+12- shift_write:12+5 channel_group:17+8-",
        ),
    ),
)  # fmt: skip
"""The instruction set of Vitis AI 2.x and 3.x."""

ISA0 = Isa(
    "ISA0",
    (
        _format(
            "LOAD", 0x0, LOAD,
            "bank_addr:0+12 bank_id:12+6 hp_id:18+2",
            "jump_read:0+16- pad_idx:16+5- pad_end:21+5 pad_start:26+5",
            "channel:0+12- mode_avg:12+2 length:14+10- jump_write:24+8-",
            "ddr_addr:0+29 reg_id:29+3",
        ),
        _format(
            "SAVE", 0x4, SAVE,
            "bank_addr:0+12 bank_id:12+6 hp_id:18+2",
            "jump_write:0+16-",
            "channel:0+12- length:14+10- jump_read:24+8-",
            "ddr_addr:0+29 reg_id:29+3",
        ),
        _format(
            "POOLINIT", 0x6, MISC,
            "jump_read:0+10- kernel_h:10+3- kernel_w:13+3- shift_cut:16+4",
            "pool_type:0+2 stride_h:2+3- stride_w:5+3- stride_offset_in:8+3 vpp:11+3- "
            "stride_offset_out:14+3 stride_out:17+4- jump_write:21+10-",
        ),
        _format("END", 0x7, SAVE, ""),
        ISA1.by_name["CONV"],
        ISA1.by_name["CONVINIT"],
        _format(
            "DPTWISE", 0xA, MISC,
            "bank_addr_in:0+12 channel_group:12+8-",
            "bank_addr_out:0+12 pad_bottom:16+4 pad_top:20+4 pad_right:24+4 pad_left:28+4",
            "bank_addr_weights:0+12 bank_id_in:12+6 length:18+10- act_type:28+4",
            "bank_addr_bias:0+12 bank_id_out:12+6 bank_addr_in_1:18+12",
            "bank_addr_in_2:0+12 bank_addr_in_3:12+12 channel_offset:24+5",
        ),
        _format(
            "DWINIT", 0xB, MISC,
            "jump_read_endl:0+10- jump_read:10+10-",
            "jump_write_endl:0+10- kernel_h:10+4- kernel_w:14+4- stride_h:18+4- stride_w:22+4- "
            "vpp:26+3- stride_offset_in:29+3",
            "shift_cut:0+6 shift_bias:6+6 stride_offset_out:12+3 stride_out:15+4- "
            "jump_write:19+10-",
        ),
        _format(
            "POOL", 0xC, MISC,
            "bank_addr_in:0+12 channel_group:12+8-",
            "bank_id_in:0+6 pad_bottom:6+3 pad_right:9+3 pad_top:12+3 pad_left:15+3 "
            "jump_write_endl:18+12-",
            "bank_id_out:0+6 length:6+10- jump_read_endl:16+12-",
            "bank_addr_out:0+12 bank_addr_in_1:12+12 global_kernel_w:24+8-",
            "bank_addr_in_2:0+12 bank_addr_in_3:12+12 global_kernel_h:24+8-",
        ),
        _format(
            "ELEWINIT", 0xD, MISC,
            "jump_read:0+10- shift_read:10+4 bank_id_in:14+6",
            "bank_addr_in:0+12 id:12+2 jump_read_endl:14+12-",
        ),
        _format(
            "ELEW", 0xE, MISC,
            "jump_write:0+10- shift_write:10+4 bank_id_out:14+6",
            "bank_addr_out:0+12 length:12+9- act_type:21+1 channel_group:22+8- num:30+2-",
            "jump_write_endl:0+12- vpp:12+3-",
        ),
    ),
)  # fmt: skip
"""The instruction set of Vitis AI 1.x; its CONV and CONVINIT are ISA1's."""

ISAS = {0: ISA0, 1: ISA1}
"""Instruction sets by bits 55 to 48 of the fingerprint."""
