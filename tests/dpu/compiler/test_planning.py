"""The decisions of the plan and the cutting into strips, each without the banks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.dpu.compiler.test_board_networks import B4096
from tutelage.core.fingerprint import dpu_parts
from tutelage.dpu.compiler.board.grouping import Grouping
from tutelage.dpu.compiler.board.network import Store
from tutelage.dpu.compiler.board.part import compile_part
from tutelage.dpu.compiler.board.pieces import cut_chain
from tutelage.dpu.compiler.board.residence import Residence
from tutelage.dpu.compiler.board.stores import network_of
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.isa.encoding import encode
from tutelage.dpu.isa.machine import shape_of
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph


def _conv(model: CompiledModel, name: str, x: Op, kernel: int = 3) -> Op:
    channels = x.get_output_tensor().dims[3]
    weights = np.ones((16, kernel, kernel, channels), np.int8)
    return model.conv2d(name, x, weights, 7, None, 0, 4, pad=[kernel // 2] * 4)


def _residence(model: CompiledModel, room: int) -> Residence:
    graph = model.finish()
    (subgraph,) = dpu_parts(graph)
    network = network_of(subgraph, build_program(graph, subgraph).constants)
    return Residence(network, shape_of(B4096), room)


def _chain(room: int) -> Residence:
    return _residence(_chain_model(), room)


def _chain_model() -> CompiledModel:
    """Return three convolutions, one after the other, of 40x40 pixels."""
    model = CompiledModel("chain")
    x = model.input("image", [1, 40, 40, 16], 4)
    for name in "abc":
        x = _conv(model, name, x)
    model.output(x)
    return model


def _store(residence: Residence, name: str) -> Store:
    return next(store for store in residence.network.stores if store.name == name)


def test_maps_stay_on_the_chip_until_they_are_given_up() -> None:
    residence = _chain(BANK_DEPTH)
    first, second = _store(residence, "a"), _store(residence, "b")
    assert residence.readers == {first: [1], second: [2]}
    residence.give_up([first, second], place=1)  # the second is in use for longer
    assert residence.readers == {first: [1]} and residence.rings == {second}
    residence.drop_ring(second)
    assert residence.is_loaded(second, 2)


def test_maps_larger_than_the_banks_are_rings_in_one_stage() -> None:
    grouping = Grouping(_chain(room=100))
    assert len(grouping.residence.rings) == 2
    assert list(grouping.stages()) == [[0, 1, 2]]
    assert grouping.split([0, 1, 2])  # at the first of two maps of one size
    assert list(grouping.stages()) == [[0], [1, 2]]


def test_layers_that_read_the_same_rows_of_an_input_form_a_stage() -> None:
    model = CompiledModel("siblings")
    x = model.input("image", [1, 8, 8, 16], 4)
    for name in "ab":
        model.output(_conv(model, name, x))
    grouping = Grouping(_residence(model, BANK_DEPTH))
    assert list(grouping.stages()) == [[0, 1]] and grouping.are_siblings([0, 1])
    assert grouping.split([0, 1])
    assert list(grouping.stages()) == [[0], [1]]
    assert not grouping.split([0])


def test_strips_of_a_chain_compute_the_columns_at_their_borders_twice() -> None:
    strips = list(cut_chain(_chain(room=100), [0, 1, 2], 2))
    columns = [[(piece.column, piece.columns) for piece in pieces] for pieces in strips]
    assert columns == [[(0, 22), (0, 21), (0, 20)], [(18, 22), (19, 21), (20, 20)]]
    first, second = (pieces[0].feed for pieces in strips)
    assert first is not None and (first.column, first.columns) == (0, 23)
    assert second is not None and (second.column, second.columns) == (17, 23)


def test_a_single_strip_has_all_columns() -> None:
    (pieces,) = cut_chain(_chain(room=100), [0, 1, 2], 1)
    assert [(piece.column, piece.columns) for piece in pieces] == [(0, 40)] * 3


def test_code_does_not_depend_on_the_order_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_ops` returns a set; the layers of the chain have equal weights at three addresses."""
    graph = _chain_model().finish()
    (subgraph,) = dpu_parts(graph)
    codes = []
    for ops in (subgraph.toposort(), subgraph.toposort()[::-1]):
        monkeypatch.setattr(Subgraph, "get_ops", lambda _, ops=ops: ops)
        codes.append(encode(compile_part(subgraph, B4096).code))
    assert codes[0] == codes[1]
