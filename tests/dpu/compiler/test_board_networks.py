"""Random networks, compiled for every size of DPU, give their ops' values in any legal order."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st

from tests.dpu.compiler.board_networks import networks
from tutelage.core.fingerprint import dpu_parts
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.board.part import compile_part, seal
from tutelage.dpu.engine.fast import FastEngine
from tutelage.dpu.engine.instructions import CompiledPart
from tutelage.dpu.engine.program import Program, build_program
from tutelage.dpu.engine.reference import ReferenceEngine
from tutelage.dpu.isa.machine import Machine
from tutelage.dpu.isa.races import run_checked
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.subgraph import Subgraph

EXAMPLES = int(os.environ.get("TUTELAGE_EXAMPLES", "60"))

B4096 = 0x101000016010407

FINGERPRINTS = [B4096 & ~0xF | size for size in range(8)]
"""Fingerprints of all array sizes, with the features of the ZCU104's DPU."""


def check_part(
    subgraph: Subgraph, fingerprint: int, room: int, seed: int,
    engine: Callable[[Program], FastEngine | ReferenceEngine] = ReferenceEngine,
) -> dict[str, Array]:  # fmt: skip
    """Compile a DPU subgraph, compare every output byte with an engine's, and return them.

    Parameters
    ----------
    seed : seed of the inputs, and of the second order of instructions
    """
    program = build_program(subgraph.get_graph(), subgraph)
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {
        op.get_name(): rng.integers(-128, 128, op.get_output_tensor().dims, dtype=np.int8)
        for op in program.inputs
    }
    names = {op.get_name() for op in program.outputs}
    wanted = engine(program).compute(feeds, names)
    part = compile_part(subgraph, fingerprint, room)
    seal(subgraph, part, fingerprint)
    compiled = CompiledPart(subgraph)
    for order in (None, seed):
        found = compiled.run(feeds, order)
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name].reshape(values.shape), values)
    registers = compiled.registers()
    for name, place in compiled.inputs.items():
        place.view(registers)[...] = feeds[name]
    run_checked(compiled.code, Machine(compiled.shape, registers))
    return wanted


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from(FINGERPRINTS), st.sampled_from([2048, 700, 200, 60]),
       st.integers(0, 99))  # fmt: skip
def test_random_networks(graph: Graph, fingerprint: int, room: int, seed: int) -> None:
    for subgraph in dpu_parts(graph):
        for op in subgraph.toposort():  # Hypothesis prints this for a failing network
            sources = [source.get_name() for source in op.get_input_ops().get("input", [])]
            dims = op.get_output_tensor().dims
            note(f"{op.get_type()} {op.get_name()} {dims} {sources} {op.get_attrs()}")
        try:
            check_part(subgraph, fingerprint, room, seed)
        except Refusal:
            assume(False)
