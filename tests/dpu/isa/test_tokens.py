"""Random programs with computed tokens give the same results in every legal order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction, decode, encode
from tutelage.dpu.isa.formats import ENGINES, ISA1, IsaError
from tutelage.dpu.isa.machine import Machine, shape_of
from tutelage.dpu.isa.program import run
from tutelage.dpu.isa.races import run_checked
from tutelage.dpu.isa.tokens import set_tokens

SHAPE = shape_of(0x101000016010407)
SIZE = 4096


def _make(name: str, **values: int) -> Instruction:
    return Instruction(ISA1.by_name[name], **values)


_few = st.integers(0, 3)


@st.composite
def loads(draw: st.DrawFn) -> list[Instruction]:
    bank = draw(st.sampled_from([0, 1, 8, 9, 16, 17, 33]))
    return [_make("LOAD", bank_id=bank, bank_addr=draw(_few), length=draw(st.integers(1, 3)),
                  channel=draw(st.sampled_from([1, 16, 20])), jump_read=draw(st.integers(65, 80)),
                  jump_write=draw(st.integers(1, 2)), reg_id=draw(st.integers(1, 2)),
                  ddr_addr=draw(st.integers(0, 99)))]  # fmt: skip


@st.composite
def saves(draw: st.DrawFn) -> list[Instruction]:
    return [_make("SAVE", bank_id=draw(st.sampled_from([0, 1, 8, 9])), bank_addr=draw(_few),
                  length=draw(st.integers(1, 3)), channel=draw(st.sampled_from([1, 16, 20])),
                  jump_read=draw(st.integers(1, 2)), jump_write=draw(st.integers(20, 40)),
                  reg_id=draw(st.integers(1, 2)), ddr_addr=draw(st.integers(0, 99)))]  # fmt: skip


@st.composite
def convolutions(draw: st.DrawFn) -> list[Instruction]:
    kernel, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    base = draw(_few)
    init = _make("CONVINIT", kernel_h=kernel, kernel_w=kernel, stride_h=stride, stride_w=stride,
                 vpp=draw(st.integers(1, 3)), shift_cut=draw(st.integers(0, 9)), shift_bias=1,
                 act_type=draw(st.sampled_from([0, 1, 3, 4])), jump_read_endl=4)  # fmt: skip
    conv = _make("CONV", bank_id_in=draw(st.sampled_from([0, 1, 7, 8])), bank_addr_in=base,
                 bank_addr_in_1=base + 8, bank_id_out=draw(st.sampled_from([0, 8, 9, 15])),
                 bank_addr_out=draw(_few), length=draw(st.integers(1, 3)), pad_bottom=9,
                 pad_right=9, bank_addr_bias=draw(_few),
                 bank_addr_weights=draw(_few))  # fmt: skip
    return [init, conv]


@st.composite
def sums(draw: st.DrawFn) -> list[Instruction]:
    vpp, number = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inits = [_make("ELEWINIT", id=k, bank_id_in=draw(st.sampled_from([0, 1, 8, 15])), jump_read=1,
                   bank_addr_in=draw(_few), shift_read=draw(st.integers(0, 2)))
             for k in range(number)]  # fmt: skip
    return [
        *inits,
        _make(
            "ELEW",
            num=number,
            vpp=vpp,
            length=draw(st.integers(1, 3)),
            bank_id_out=draw(st.sampled_from([0, 1, 8, 15])),
            jump_write=1,
            bank_addr_out=draw(_few),
            shift_write=draw(st.integers(0, 3)),
        ),
    ]


@st.composite
def pools(draw: st.DrawFn) -> list[Instruction]:
    mode = draw(st.sampled_from([2, 3, 7]))
    kernel = 1 if mode == 7 else draw(st.integers(1, 2))
    init = _make(
        "ALUINIT",
        exec_mode=mode,
        kernel_w=kernel,
        kernel_h=kernel,
        length=draw(st.integers(1, 3)),
        multi_factor=1,
        shift_cut=14 if mode == 7 else 0,
        jump_read_endl=4,
    )
    alu = _make("ALU", bank_id_in=draw(st.sampled_from([0, 7, 8])), bank_addr_in=draw(_few),
                bank_addr_in_1=9, bank_id_out=draw(st.sampled_from([1, 9, 15])), pad_bottom=9,
                pad_right=9, bank_addr_out=draw(_few), vpp=draw(st.integers(1, 3)))  # fmt: skip
    return [init, alu]


programs = st.lists(
    st.one_of(loads(), saves(), convolutions(), sums(), pools()), min_size=1, max_size=14
).map(lambda groups: [i for group in groups for i in group] + [_make("END")])


def _memory() -> dict[int, Array]:
    rng = np.random.default_rng(0)
    return {r: rng.integers(-128, 128, SIZE).astype(np.int8) for r in (1, 2)}


def _result(code: list[Instruction], seed: int | None) -> dict[int, Array]:
    machine = Machine(SHAPE, _memory())
    run(code, machine, seed)
    return {**machine.registers, -1: machine.banks}


@given(programs, st.lists(st.integers(0, 2**32), min_size=1, max_size=4))
def test_every_legal_order_gives_the_same(code: list[Instruction], seeds: list[int]) -> None:
    set_tokens(code, Machine(SHAPE, _memory()))
    run_checked(code, Machine(SHAPE, _memory()))
    assert decode(encode(code), ISA1) == code
    wanted = _result(code, None)
    for seed in seeds:
        found = _result(code, seed)
        for place in wanted:
            np.testing.assert_array_equal(found[place], wanted[place])


@settings(max_examples=60)
@given(programs, st.data())
def test_where_a_token_is_missing_there_is_a_race_or_it_was_implied(
    code: list[Instruction], data: st.DataObject
) -> None:
    """Without one of the tokens, the checker finds a race, or all orders give the same results."""
    set_tokens(code, Machine(SHAPE, _memory()))
    wanted = _result(code, None)
    pairs = [(a, b) for a in ENGINES for b in ENGINES if a is not b
             and any(i.engine is b and i.dpdon & a for i in code)]  # fmt: skip
    if not pairs:
        return
    giver, taker = data.draw(st.sampled_from(pairs))
    gives = [i for i in code if i.engine is giver and i.dpdby & taker]
    takes = [i for i in code if i.engine is taker and i.dpdon & giver]
    number = data.draw(st.integers(0, len(gives) - 1))
    gives[number].dpdby &= ~taker
    takes[number].dpdon &= ~giver
    try:
        run_checked(code, Machine(SHAPE, _memory()))
    except IsaError as error:
        assert "race: instruction" in str(error)
        return
    for seed in range(8):
        found = _result(code, seed)
        assert all(np.array_equal(found[place], wanted[place]) for place in wanted)


def test_two_that_share_nothing_wait_for_nothing() -> None:
    code = [_make("LOAD", bank_id=0), _make("SAVE", bank_id=8, reg_id=1), _make("END")]
    set_tokens(code, Machine(SHAPE, {0: np.zeros(9, np.int8), 1: np.zeros(9, np.int8)}))
    assert [(i.dpdon, i.dpdby) for i in code] == [(1, 1), (2, 2), (2, 2)]
