"""The time of a compiled file by its own DPU code.

The layer model (`tutelage.dpu.predict.stage_times`) predicts what a compiler would make of a
network; a file with DPU code has what a compiler made of it, which is simulated instead.
"""

from __future__ import annotations

from tutelage.core.errors import UnsupportedError
from tutelage.dpu.inspect.code import compiled_parts
from tutelage.dpu.isa.costs import Costs
from tutelage.dpu.isa.timing import simulate
from tutelage.dpu.xmodel.graph import Graph

SOURCE = "simulated from the file's own instructions, dpu/isa/timing.py"


def code_cycles(graph: Graph, costs: Costs) -> float | None:
    """Return the simulated cycles of one job, of all DPU subgraphs, on a core that works alone.

    Returns
    -------
    None for a file without DPU code

    Raises
    ------
    IsaError
        No DPU runs the code.
    """
    try:
        parts = compiled_parts(graph)
    except UnsupportedError:
        return None
    return sum(simulate(part.code, part.shape, costs).cycles for part in parts)
