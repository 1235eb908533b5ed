"""Assembler and disassembler: one line per instruction.

    CONV on=LOAD+CONV by=SAVE+CONV bank_id_in=0 length=28 ...   ; conv1: 8 rows from row 0

`on` and `by` are the engines whose tokens the instruction takes and gives. Omitted fields have
their lowest value. A semicolon begins a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from tutelage.dpu.isa.encoding import MAX_CODE, Instruction
from tutelage.dpu.isa.formats import ENGINES, Isa, IsaError, engines_of

MAX_SOURCE = 1 << 26
"""Most bytes of an assembly file; the largest known network takes 17 MB."""

MAX_LINES = MAX_CODE // 8
"""Most instructions of an assembly file: the most that code can have."""

_TOKENS = {"on": "dpdon", "by": "dpdby"}
_WORD = re.compile(r"(\w+)=(\S+)")


def disassemble(code: Iterable[Instruction], comments: Sequence[str] = ()) -> list[str]:
    """Return one line per instruction, without line breaks.

    Parameters
    ----------
    comments : one per instruction, "" for none; may be shorter than the code
    """
    lines = []
    for instruction, comment in zip_longest(code, comments, fillvalue=""):
        assert isinstance(instruction, Instruction)
        line = _line(instruction)
        lines.append(f"{line}  ; {comment}" if comment else line)
    return lines


def _line(instruction: Instruction) -> str:
    words = [instruction.name]
    words += [f"{short}={_engines(getattr(instruction, name))}" for short, name in _TOKENS.items()]
    for field in instruction.form.fields[len(_TOKENS) :]:
        value = getattr(instruction, field.name)
        if value != field.lowest:
            words.append(f"{field.name}={value}")
    return " ".join(words)


def _engines(bits: int) -> str:
    """Return the names of engines, "0" for none."""
    return "+".join(str(engine.name) for engine in engines_of(bits)) or "0"


def assemble(lines: Iterable[str], isa: Isa) -> list[Instruction]:
    """Return the instructions of lines, skipping empty lines and comments.

    Raises
    ------
    IsaError
        A line has an unknown instruction or field, or an invalid value; the message gives the
        line number.
    """
    found: list[Instruction] = []
    for number, line in enumerate(lines, 1):
        text = line.partition(";")[0].strip()
        if text:
            if len(found) >= MAX_LINES:
                raise IsaError(f"line {number}: more than {MAX_LINES:,} instructions")
            try:
                found.append(_instruction(text, isa))
            except IsaError as error:
                raise IsaError(f"line {number}: {error}") from None
    return found


def _instruction(text: str, isa: Isa) -> Instruction:
    name, *words = text.split()
    form = isa.by_name.get(name)
    if form is None:
        raise IsaError(f"{isa.name} has no instruction {name!r}")
    values: dict[str, int] = {}
    for word in words:
        match = _WORD.fullmatch(word)
        field = form.by_name.get(_TOKENS.get(match[1], match[1])) if match else None
        if match is None or field is None or match[1] in _TOKENS.values():
            raise IsaError(f"{name} has no field {word.partition('=')[0]!r}")
        if field.name in values:
            raise IsaError(f"{name} has {match[1]} twice")
        value = _tokens(match[2]) if match[1] in _TOKENS else _integer(match[2])
        if not field.lowest <= value <= field.highest:
            raise IsaError(f"{name} has {word}; it must be {field.lowest} to {field.highest}")
        values[field.name] = value
    return Instruction(form, **values)


def _integer(text: str) -> int:
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,8}|\d{1,10}", text):
        raise IsaError(f"{text!r} is not a number")
    return int(text, 16 if text.startswith("0x") else 10)


def _tokens(text: str) -> int:
    names = {str(engine.name): int(engine) for engine in ENGINES}
    parts = [] if text == "0" else text.split("+")
    if unknown := [part for part in parts if part not in names]:
        raise IsaError(f"{unknown[0]!r} is not one of {', '.join(names)}")
    return sum({names[part] for part in parts})
