"""The simulated time of code: four engines, ordered by tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.dpu.isa.costs import Costs, fitted_costs
from tutelage.dpu.isa.encoding import Instruction
from tutelage.dpu.isa.formats import ISA1, Engine, IsaError
from tutelage.dpu.isa.machine import shape_of
from tutelage.dpu.isa.timing import simulate, stretches
from tutelage.dpu.predict.latency import read_board

SHAPE = shape_of(0x101000016010407)
COSTS = Costs(
    array_slack=1, load_bytes=16, load_cycles=10, stage_cycles=0, save_bytes=8, stretch_cycles=4
)
LOAD, SAVE, CONV = Engine.LOAD, Engine.SAVE, Engine.CONV


def _make(name: str, on: int, by: int, **values: int) -> Instruction:
    return Instruction(ISA1.by_name[name], dpdon=on, dpdby=by, **values)


def _load(on: int = LOAD, by: int = LOAD, **values: int) -> Instruction:
    return _make("LOAD", on, by, **{"channel": 64, "length": 2, "jump_read": 64, **values})


END = _make("END", SAVE, SAVE)


def test_engines_wait_for_tokens_only() -> None:
    code = [
        _load(),  # 10 + 128 / 16 cycles
        _load(by=LOAD | CONV),
        _make("CONVINIT", CONV, CONV),
        _make("CONV", LOAD | CONV, SAVE | CONV, length=100),
        _load(),
        _make("SAVE", SAVE | CONV, SAVE, channel=64),
        END,
    ]
    found = simulate(code, SHAPE, COSTS)
    assert found.begins.tolist() == [0, 18, 0, 36, 36, 136, 154]
    assert found.ends.tolist() == [18, 36, 0, 136, 54, 154, 154]
    assert found.waits.tolist() == [0, 0, 0, 36, 0, 136, 0]
    assert found.waited_for[[3, 5]].tolist() == [1, 3]
    assert found.cycles == 154
    assert {e: found.busy[e] for e in (LOAD, SAVE, CONV)} == {LOAD: 54, SAVE: 18, CONV: 100}


def test_two_saves_share_the_ports() -> None:
    values = {"channel": 64, "length": 2, "jump_write": 64}
    code = [_make("SAVE", SAVE, 0, **values), _make("SAVE", 0, SAVE, hp_id=1, **values), END]
    found = simulate(code, SHAPE, COSTS)
    assert found.begins.tolist() == [0, 0, 26] and found.cycles == 26


def test_separate_pixels_take_at_least_a_stretch_each() -> None:
    near, far = _load(length=50, channel=8, jump_read=8), _load(length=50, channel=8, jump_read=9)
    assert (stretches(near), stretches(far), stretches(END)) == (1, 50, 0)
    assert simulate([near, END], SHAPE, COSTS).cycles == 10 + 50 * 8 / 16
    assert simulate([far, END], SHAPE, COSTS).cycles == 10 + 50 * 4


def test_a_layer_begins_late() -> None:
    costs = replace(COSTS, load_cycles=0, stage_cycles=1000)
    bias = _load(bank_id=SHAPE.bias_bank)
    assert simulate([bias, END], SHAPE, costs).cycles == 1008
    assert simulate([_load(), END], SHAPE, costs).cycles == 8


@pytest.mark.parametrize("bank", [0, SHAPE.bias_bank])
def test_a_load_waits_for_a_save(bank: int) -> None:
    """Every LOAD waits for it, unless the engine is busy meanwhile."""
    costs = replace(COSTS, load_cycles=0, stage_cycles=1000)
    save = _make("SAVE", SAVE, SAVE | LOAD, channel=16)  # 2 cycles
    behind = _load(on=SAVE | LOAD, bank_id=bank)
    found = simulate([save, behind, END], SHAPE, costs)
    assert (found.begins[1], found.waits[1], found.waited_for[1]) == (1002, 1002, 0)
    busy = _load(length=300)  # 1,200 cycles
    found = simulate([save, busy, behind, END], SHAPE, costs)
    assert (found.begins[2], found.waits[2]) == (1200, 0)


def test_the_layer_model_has_the_same_costs() -> None:
    """Each is fitted once, for the prediction of a board and for the simulation alike."""
    code = [_load(), _load(bank_id=SHAPE.bias_bank), END]
    costs = read_board("zcu104").parameters.costs
    assert costs == fitted_costs()
    assert simulate(code, SHAPE).cycles == simulate(code, SHAPE, costs).cycles


def test_invalid_code_is_an_error() -> None:
    with pytest.raises(IsaError, match="waits for a token of CONV"):
        simulate([_make("SAVE", SAVE | CONV, SAVE), END], SHAPE)
    with pytest.raises(IsaError, match="there is no preceding CONVINIT"):
        simulate([_make("CONV", CONV, CONV), END], SHAPE)
    assert simulate([END], SHAPE).cycles == 0
    assert np.isfinite(simulate([_load(), END], SHAPE).ends).all()
