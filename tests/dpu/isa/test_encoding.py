"""Decoding and encoding of instructions are inverse."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.dpu.isa.encoding import MAX_CODE, Instruction, decode, encode
from tutelage.dpu.isa.formats import ISA0, ISA1, ISAS, Isa, IsaError

END = Instruction(ISA1.by_name["END"])


@st.composite
def instructions(draw: st.DrawFn, isa: Isa) -> Instruction:
    """Any instruction except END, with any field values."""
    form = draw(st.sampled_from([form for form in isa.formats if form.name != "END"]))
    return Instruction(
        form, **{f.name: draw(st.integers(f.lowest, f.highest)) for f in form.fields}
    )


@pytest.mark.parametrize("isa", ISAS.values(), ids=lambda isa: isa.name)
def test_fields_do_not_overlap_and_fit_their_words(isa: Isa) -> None:
    for form in isa.formats:
        masks = [0xF << 28, *[0] * (form.words - 1)]
        for field in form.fields:
            assert field.lsb + field.width <= 32 and not masks[field.word] & field.mask, field
            masks[field.word] |= field.mask
        assert list(form.masks) == masks
    assert len(isa.by_opcode) == len(isa.formats) == len(isa.by_name)


@given(st.data())
def test_encoded_instructions_are_decoded(data: st.DataObject) -> None:
    isa = data.draw(st.sampled_from([ISA0, ISA1]))
    code = [*data.draw(st.lists(instructions(isa), max_size=8)), Instruction(isa.by_name["END"])]
    assert decode(encode(code), isa) == code


@given(st.binary(max_size=64))
def test_bytes_are_code_or_an_error(data: bytes) -> None:
    for isa in ISAS.values():
        try:
            found = decode(data, isa)
        except IsaError:
            continue
        assert encode(found) == data


def test_errors_name_the_place() -> None:
    load = Instruction(ISA1.by_name["LOAD"])
    good = encode([load, END])
    cases = [
        (good[:-4], "has no END"),
        (b"", "has no END"),
        (bytes(MAX_CODE + 4), "code has 16,777,220 bytes; at most 16,777,216 are supported"),
        (good[:-3], "not a multiple of 4"),
        (good[:8] + good[-4:], "byte 0 (instruction 0): LOAD is truncated"),
        (good + good[-4:], "byte 24: there is code after END"),
        (b"\0\0\0\x30" + good, "byte 0 (instruction 0): ISA1 has no opcode 0x3"),
        (encode([load])[:16] + b"\0\0\0\x20" + good[-4:], "byte 16: bits 0x20000000 are set"),
    ]
    for code, text in cases:
        with pytest.raises(IsaError, match=re.escape(text)):
            decode(code, ISA1)
    for value in (0, 1025):
        with pytest.raises(IsaError, match=f"LOAD has length={value}; it must be 1 to 1024"):
            encode([Instruction(ISA1.by_name["LOAD"], length=value)])
