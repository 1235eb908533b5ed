"""Whole programs: their results, their legal orders, and refused ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tutelage.core.fixed_point import Array
from tutelage.dpu.isa.encoding import Instruction, decode, encode
from tutelage.dpu.isa.formats import ISA1, Engine, IsaError
from tutelage.dpu.isa.machine import Machine, shape_of
from tutelage.dpu.isa.program import run
from tutelage.dpu.isa.races import run_checked

ZCU104 = 0x101000016010407
LOAD, SAVE, CONV, MISC = Engine.LOAD, Engine.SAVE, Engine.CONV, Engine.MISC

# One 1x1 convolution of one pixel, as AMD's simulator runs it: x = 50 and -3 at fix point 4 in
# register 2; weights 100 and 7 at 6 and the bias 20 at 5 in register 0; y at 3 to register 3:
# (2 * 4979 + 20 * 2^6) / 2^8 = 43.9.
WORDS = """
    01100000 00000400 00000400 00000002 00000000
    01184000 00000000 00000000 00000000 00000002
    94401c00 00001800 00000000 00000000
    01540000 00000400 00000400 00000000 00000000
    85600000 00000000 00000000 00048000 0e003002
    46220000 00000000 00000000 00000003 00000000
    72200000
"""
CODE = b"".join(int(word, 16).to_bytes(4, "little") for word in WORDS.split())


def registers() -> dict[int, Array]:
    return {
        0: np.array([100, 7, 20], np.int8),
        2: np.array([50, -3], np.int8),
        3: np.zeros(1, np.int8),
    }


@pytest.fixture
def program() -> list[Instruction]:
    return decode(CODE, ISA1)


@pytest.mark.parametrize("seed", [None, *range(10)])
def test_a_convolution_of_one_pixel(program: list[Instruction], seed: int | None) -> None:
    memory = registers()
    run(program, Machine(shape_of(ZCU104), memory), seed)
    assert memory[3].tolist() == [44]
    assert encode(program) == CODE


def test_its_accesses_are_ordered(program: list[Instruction]) -> None:
    memory = registers()
    run_checked(program, Machine(shape_of(ZCU104), memory))
    assert memory[3].tolist() == [44]


def without(
    program: Sequence[Instruction], consumer: int, producer: int, engine: Engine, own: Engine
) -> list[Instruction]:
    """The program without one token between two engines."""
    changed = decode(encode(program), ISA1)
    changed[consumer].dpdon &= ~engine
    changed[producer].dpdby &= ~own
    return changed


def test_a_token_that_is_missing_is_a_race(program: list[Instruction]) -> None:
    machine = Machine(shape_of(ZCU104), registers())
    loads_to_conv = without(program, consumer=4, producer=3, engine=LOAD, own=CONV)
    with pytest.raises(IsaError, match=r"race: instruction 4 \(CONV\) and instruction 3 \(LOAD\)"):
        run_checked(loads_to_conv, machine)
    conv_to_save = without(program, consumer=5, producer=4, engine=CONV, own=SAVE)
    with pytest.raises(IsaError, match=r"race: instruction 5 \(SAVE\) and instruction 4 \(CONV\)"):
        run_checked(conv_to_save, machine)


def test_a_watched_machine_refuses_the_same(program: list[Instruction]) -> None:
    program[0].__dict__.update(bank_id=34)
    with pytest.raises(IsaError, match="bank 34 does not exist; this DPU has 34 banks"):
        run_checked(program, Machine(shape_of(ZCU104), registers()))


def test_a_pixel_of_padding_alone_reads_nothing(program: list[Instruction]) -> None:
    program[0].__dict__.update(channel=1, jump_read=1, pad_start=2, ddr_addr=7)
    run(program, Machine(shape_of(ZCU104), registers()))


def test_a_window_of_padding_alone_reads_nothing(program: list[Instruction]) -> None:
    program[4].__dict__.update(pad_left=15)
    memory = registers()
    run(program, Machine(shape_of(ZCU104), memory))
    assert memory[3].tolist() == [5]  # the bias alone: 20 * 2^6 / 2^8


@pytest.mark.parametrize(
    ("place", "changes", "text"),
    [
        (2, {"kernel_h": 16, "kernel_w": 16}, "weights take 2560 rows; a bank has 2048"),
        (4, {"length": 1024}, "1024 pixels of 10 channel groups exceed a bank's 2048 rows"),
    ],
)
def test_accesses_beyond_a_bank(
    program: list[Instruction], place: int, changes: dict[str, int], text: str
) -> None:
    program[place].__dict__.update(changes)
    program[4].__dict__.update(channel_group=10, pad_right=15, pad_bottom=15)
    with pytest.raises(IsaError, match=text):
        run(program, Machine(shape_of(ZCU104), registers()))


def test_engines_that_wait_for_ever(program: list[Instruction]) -> None:
    program[3].dpdby &= ~CONV
    for seed, text in ((None, "that only later code gives"), (0, "deadlock: ")):
        with pytest.raises(
            IsaError, match=f"{text}|instruction 4 .CONV. waits for a token of LOAD"
        ):
            run(program, Machine(shape_of(ZCU104), registers()), seed)
    program[3].dpdby |= CONV | MISC
    with pytest.raises(IsaError, match=r"tokens left over or missing: \{'LOAD to MISC': 1\}"):
        run(program, Machine(shape_of(ZCU104), registers()))


@pytest.mark.parametrize(
    ("place", "changes", "text"),
    [
        (0, {"bank_id": 34}, r"instruction 0 \(LOAD\): bank 34 does not exist; this DPU has 34"),
        (0, {"reg_id": 5}, "register 5 has no memory"),
        (0, {"ddr_addr": 1}, "bytes 1 to 3 exceed register 2 of 2 bytes"),
        (5, {"ddr_addr": 1 << 20}, r"instruction 5 \(SAVE\): bytes 1048576 to 1048577"),
        (4, {"bank_id_in": 16}, "bank 16 is not one of the 16 for maps"),
        (2, {"act_type": 2}, "activation 2 is not one of 0, 1, 3 and 4"),
    ],
)
def test_code_that_no_machine_runs(
    program: list[Instruction], place: int, changes: dict[str, int], text: str
) -> None:
    program[place].__dict__.update(changes)
    with pytest.raises(IsaError, match=text):
        run(program, Machine(shape_of(ZCU104), registers()))
