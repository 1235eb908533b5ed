"""AMD's compiled files, compiled again from their graphs: the same outputs, no more cycles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.dpu.compiler.test_board_networks import FINGERPRINTS, check_part
from tutelage.core.fingerprint import array_of, dpu_parts, fingerprint_of
from tutelage.dpu.compiler.board.part import compile_part
from tutelage.dpu.engine.instructions import CompiledPart
from tutelage.dpu.isa.formats import ISA1
from tutelage.dpu.isa.machine import shape_of
from tutelage.dpu.isa.timing import simulate
from tutelage.dpu.ops.limits import BANK_DEPTH
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.subgraph import Subgraph

QUICK = [
    "mnist_prelu_zcu104_vai25",
    "corpus/mnist_cnn_zcu104",
    "corpus/mnist_dpu_pynq",
    "corpus/mnist_prelu_zcu104_vai30",
    "corpus/plate_detect_kv260",
]
SLOW = [
    "corpus/squeezenet_dpu_pynq",
    "corpus/zerodce_zcu104",
    "corpus/densebox_kv260",
    "corpus/ssd_adas_kv260",
    "pointpillars_zcu104_vai25",
]
OLD = ["corpus/mnist_prelu_zcu104_vai14", "corpus/googlenet_hash_b1152"]
"""For ISA0; compiled here for the DPU of that size with ISA1."""

NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in (*SLOW, *OLD))]

WORST, MEAN = 1.15, 1.0
"""Limits of the ratio of this compiler's cycles to AMD's: for each file, and the geometric mean."""


def _target(subgraph: Subgraph) -> int:
    """Return the file's DPU, or the DPU of the same size with ISA1."""
    fingerprint = fingerprint_of(subgraph)
    assert fingerprint is not None
    if shape_of(fingerprint).isa is ISA1:
        return fingerprint
    name = array_of(fingerprint).name
    return next(number for number in FINGERPRINTS if array_of(number).name == name)


@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_the_graph(shared_dir: Path, name: str) -> None:
    """tests/dpu/isa/test_amd_code.py compares the same outputs with AMD's code."""
    for subgraph in dpu_parts(Graph.deserialize(shared_dir / "models" / f"{name}.xmodel")):
        check_part(subgraph, _target(subgraph), BANK_DEPTH, 1)


@pytest.mark.slow
def test_cycles_beside_those_of_amds_code(shared_dir: Path) -> None:
    ratios = {}
    for name in (*QUICK, *SLOW, *OLD):
        theirs = ours = 0.0
        for subgraph in dpu_parts(Graph.deserialize(shared_dir / "models" / f"{name}.xmodel")):
            part = CompiledPart(subgraph)
            theirs += simulate(part.code, part.shape).cycles
            target = _target(subgraph)
            ours += simulate(compile_part(subgraph, target).code, shape_of(target)).cycles
        ratios[name] = ours / theirs
    assert max(ratios.values()) <= WORST, ratios
    assert np.exp(np.mean(np.log(list(ratios.values())))) <= MEAN, ratios
