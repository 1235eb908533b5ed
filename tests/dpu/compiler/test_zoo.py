"""Published networks, compiled for the ZCU104, give the same outputs as the emulation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.dpu.compiler.test_board_networks import B4096, check_part
from tests.dpu.compiler.zoo import NETWORKS
from tutelage.core.fingerprint import dpu_parts
from tutelage.dpu.engine.fast import FastEngine
from tutelage.dpu.ops.limits import BANK_DEPTH

QUICK = {"densenet_bc", "densenet_bc_pre", "squeezenet"}


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS]
)
def test_it_is_its_emulation(name: str) -> None:
    (subgraph,) = dpu_parts(NETWORKS[name]())
    outputs = check_part(subgraph, B4096, BANK_DEPTH, 1, FastEngine)
    for values in outputs.values():  # neither vanished nor saturated, or the test would be weak
        assert values.std() > 4
        assert np.mean(abs(values.astype(int)) >= 127) < 0.2
