"""docs/reference/instruction-set.md agrees with the code: its tables are those of dpu/isa."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.dpu.isa import executor
from tutelage.dpu.isa.formats import ISA0, ISA1, Format, Isa
from tutelage.dpu.isa.machine import shape_of

TEXT = (Path(__file__).resolve().parents[3] / "docs/reference/instruction-set.md").read_text(
    encoding="utf-8"
)


def _table(head: str) -> list[list[str]]:
    """The rows of the table whose first heading is `head`."""
    lines = TEXT.splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith(f"| {head} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def _row(form: Format) -> list[str]:
    words = []
    for word in range(form.words):
        fields = [
            f"{f.name}:{f.lsb}+{f.width}{'-' if f.less_one else ''}"
            for f in form.fields[2:]
            if f.word == word
        ]
        if fields:
            words.append(" ".join([f"w{word}", *fields]))
    return [form.name, str(form.engine.name), f"{form.opcode:X}", " / ".join(words)]


@pytest.mark.parametrize("isa", [ISA0, ISA1], ids=lambda isa: isa.name)
def test_the_formats(isa: Isa) -> None:
    same = {"CONV", "CONVINIT", "END"} if isa is ISA0 else set()
    assert _table(isa.name) == [_row(form) for form in isa.formats if form.name not in same]
    for name in ("CONV", "CONVINIT", "END"):
        assert ISA0.by_name[name].fields == ISA1.by_name[name].fields


UNSEEN_MODES = {1, 4, 5, 8}
"""Modes of ALU that occur in AMD's sources but in no known file."""


def test_the_modes_of_alu() -> None:
    rows = _table("exec_mode of ALU")
    assert [int(row[0]) for row in rows] == sorted(executor.MODES)
    assert {int(row[0]) for row in rows if row[2] == "[s]"} == UNSEEN_MODES


def test_the_banks_of_a_b4096() -> None:
    shape = shape_of(0x101000016010407)
    maps, weights, depthwise, bias = (row[2] for row in _table("banks"))
    assert maps == f"0 to {shape.map_banks - 1}"
    assert weights == f"{shape.weight_bank} to {shape.depthwise_bank - 1}"
    assert (depthwise, bias) == (str(shape.depthwise_bank), str(shape.bias_bank))
