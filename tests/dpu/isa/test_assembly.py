"""Disassembly and assembly are inverse."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dpu.isa.test_encoding import instructions
from tutelage.dpu.isa.assembly import assemble, disassemble
from tutelage.dpu.isa.formats import ISA1, ISAS, IsaError


@given(st.data())
def test_disassembled_code_assembles_to_the_same_bytes(data: st.DataObject) -> None:
    isa = data.draw(st.sampled_from(list(ISAS.values())))
    code = data.draw(st.lists(instructions(isa), max_size=8))
    comments = data.draw(st.lists(st.sampled_from(["", "conv1; 8 rows"]), max_size=len(code)))
    assert assemble(disassemble(code, comments), isa) == code


def test_it_reads_well() -> None:
    text = "CONV on=LOAD+CONV by=SAVE bank_addr_in=0x10 length=28  ; the first rows"
    (conv,) = assemble(["", "; nothing", text], ISA1)
    assert (conv.dpdon, conv.dpdby, conv.bank_addr_in, conv.length) == (5, 2, 16, 28)
    assert disassemble([conv], ["the first rows"]) == [text.replace("0x10", "16")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("JUMP", "ISA1 has no instruction 'JUMP'"),
        ("LOAD rows=1", "LOAD has no field 'rows'"),
        ("LOAD dpdon=1", "LOAD has no field 'dpdon'"),
        ("LOAD length", "LOAD has no field 'length'"),
        ("LOAD length=1 length=2", "LOAD has length twice"),
        ("LOAD length=1025", "LOAD has length=1025; it must be 1 to 1024"),
        ("LOAD length=-1", "'-1' is not a number"),
        ("LOAD length=" + "9" * 5000, "is not a number"),
        ("LOAD on=CPU", "'CPU' is not one of LOAD, SAVE, CONV, MISC"),
    ],
)
def test_errors_name_the_line(line: str, text: str) -> None:
    with pytest.raises(IsaError, match=re.escape("line 2: ") + ".*" + re.escape(text)):
        assemble(["END", line], ISA1)
