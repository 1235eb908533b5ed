"""Simulated time of a compiled file's own DPU code.

The layer model (`tutelage.dpu.predict.stage_times`) predicts the code that a compiler would
generate for a network; if a file already has DPU code, that is simulated instead.
"""

from __future__ import annotations

from tutelage.core.errors import UnsupportedError
from tutelage.dpu.inspect.code import compiled_parts
from tutelage.dpu.isa.costs import Costs
from tutelage.dpu.isa.timing import simulate
from tutelage.dpu.xmodel.graph import Graph

SOURCE = "simulated from the file's own instructions, dpu/isa/timing.py"


def code_cycles(graph: Graph, costs: Costs) -> float | None:
    """Return the simulated cycles of one job of all DPU subgraphs, without other active cores.

    Returns
    -------
    cycles; None for a file without DPU code

    Raises
    ------
    IsaError
        The code is invalid.
    """
    try:
        parts = compiled_parts(graph)
    except UnsupportedError:
        return None
    return sum(simulate(part.code, part.shape, costs).cycles for part in parts)
