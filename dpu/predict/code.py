"""The time of a compiled file by its own DPU code, beside that of the layer model.

The layer model (`tutelage.dpu.predict.latency`) predicts what a compiler would make of a network;
a file with DPU code has what a compiler made of it, which is simulated instead.
"""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import UnsupportedError
from tutelage.dpu.inspect.code import compiled_parts
from tutelage.dpu.isa.timing import simulate
from tutelage.dpu.predict.latency import Prediction
from tutelage.dpu.xmodel.graph import Graph

SOURCE = "simulated from the file's own instructions, dpu/isa/timing.py"


def code_facts(graph: Graph, prediction: Prediction) -> dict[str, Any] | None:
    """Return the simulated time of a job for JSON, with the A53's part of `prediction`.

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
    cycles = sum(simulate(part.code, part.shape).cycles for part in parts)
    milliseconds = 1e-3 * cycles / prediction.board.clock_mhz
    return {
        "cycles": round(cycles, 1),
        "dpu_ms": milliseconds,
        "latency_ms": milliseconds + 1e3 * prediction.cpu_seconds,
        "source": SOURCE,
    }
