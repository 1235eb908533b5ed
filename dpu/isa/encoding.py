"""Conversion of code to instructions and back: `decode` and `encode`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.formats import OPCODE_BIT, WORD_BYTES, Engine, Format, Isa, IsaError

MAX_CODE = 1 << 24
"""Largest code that is read, bytes: 16 times the largest known. In memory, an instruction takes a
hundred times its bytes."""


class Instruction:
    """One instruction: its format, and its fields as attributes.

    Values are decoded: a length of 28 is 28, although the word contains 27.

    Attributes
    ----------
    form : its format
    dpdon, dpdby : engines whose tokens it takes and gives
    """

    form: Format
    dpdon: int
    dpdby: int

    def __init__(self, form: Format, **values: int) -> None:
        self.__dict__.update(dict.fromkeys(form.by_name, 0))
        self.__dict__.update({f.name: 1 for f in form.fields if f.less_one})
        self.__dict__.update(values)
        self.form = form

    def __getattr__(self, name: str) -> int:  # for type checkers: fields are in __dict__
        raise AttributeError(f"the instruction has no field {name}")

    @property
    def name(self) -> str:
        """Name of the instruction, such as "CONV"."""
        return self.form.name

    @property
    def engine(self) -> Engine:
        """The engine that executes it."""
        return self.form.engine

    @property
    def values(self) -> dict[str, int]:
        """Fields by name."""
        return {field.name: self.__dict__[field.name] for field in self.form.fields}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instruction) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.values.items())})"


def decode(code: bytes, isa: Isa) -> list[Instruction]:
    """Return the instructions of DPU code, END included.

    Raises
    ------
    IsaError
        An opcode is unknown, a bit outside all fields is set, the code is truncated, continues
        after its END or lacks it (the message gives the byte), or has more than MAX_CODE bytes.
    """
    if len(code) > MAX_CODE:
        raise IsaError(f"code has {len(code):,} bytes; at most {MAX_CODE:,} are supported")
    if len(code) % WORD_BYTES:
        raise IsaError(f"code has {len(code)} bytes, not a multiple of {WORD_BYTES}")
    words = np.frombuffer(code, "<u4").astype(np.int64)
    places = _places(words, isa)
    found: list[Any] = [None] * sum(map(len, places.values()))
    for form in isa.formats:
        rows = np.array(places[form.name], np.int64).reshape(-1, 2)
        for number, instruction in zip(rows[:, 0].tolist(), _read(form, rows[:, 1], words),
                                       strict=True):  # fmt: skip
            found[number] = instruction
    return found


def _places(words: Array, isa: Isa) -> dict[str, list[tuple[int, int]]]:
    """Return, by format, the number of each instruction and the index of its first word."""
    places: dict[str, list[tuple[int, int]]] = {form.name: [] for form in isa.formats}
    opcodes = (words >> OPCODE_BIT).tolist()
    at = number = 0
    while at < len(opcodes):
        form = isa.by_opcode.get(opcodes[at])
        where = f"byte {at * WORD_BYTES} (instruction {number})"
        if form is None:
            raise IsaError(f"{where}: {isa.name} has no opcode {opcodes[at]:#x}")
        if at + form.words > len(opcodes):
            raise IsaError(f"{where}: {form.name} is truncated")
        places[form.name].append((number, at))
        at += form.words
        number += 1
        if form.name == "END":
            if at < len(opcodes):
                raise IsaError(f"byte {at * WORD_BYTES}: there is code after END")
            return places
    raise IsaError("the code has no END")


def _read(form: Format, starts: Array, words: Array) -> list[Instruction]:
    """Return all instructions of one format, given the indices of their first words."""
    table = words[starts[:, None] + np.arange(form.words)]
    stray = table & ~np.array(form.masks, np.int64)
    if stray.any():
        row, word = (int(x[0]) for x in np.nonzero(stray))
        raise IsaError(
            f"byte {(int(starts[row]) + word) * WORD_BYTES}: bits {int(stray[row, word]):#x} are "
            f"set, but undefined in word {word} of {form.name}"
        )
    columns = {
        f.name: ((table[:, f.word] >> f.lsb & (1 << f.width) - 1) + f.less_one).tolist()
        for f in form.fields
    }
    names = list(columns)
    return [
        Instruction(form, **dict(zip(names, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]


def encode(instructions: Iterable[Instruction]) -> bytes:
    """Return the code of instructions.

    Raises
    ------
    IsaError
        A value does not fit its field; the message gives both.
    """
    words: list[int] = []
    for number, instruction in enumerate(instructions):
        form = instruction.form
        found = [0] * form.words
        found[0] = form.opcode << OPCODE_BIT
        for field in form.fields:
            value = instruction.__dict__[field.name]
            if not field.lowest <= value <= field.highest:
                raise IsaError(
                    f"instruction {number}: {form.name} has {field.name}={value}; it must be "
                    f"{field.lowest} to {field.highest}"
                )
            found[field.word] |= value - field.less_one << field.lsb
        words += found
    return np.array(words, "<u4").tobytes()
