"""Lower bounds of cycles on the DPU's array, derived from its shape.

The bound is the larger of two: the cycles in which the array of one core computes, including idle
lanes, and the cycles in which the parameters are loaded from memory. Transfers of feature maps,
instructions and everything else that does not overlap with computing add to it, so a real run takes
longer: `tutelage.dpu.predict.latency` predicts the actual time. Rules that were not found in a
compiled file are marked as assumptions.

The rules of each op type are in its file in dpu/ops, their common parts in dpu/ops/work.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import B4096, DpuArray, array_of, fingerprints_of, foreign
from tutelage.dpu.inspect.layers import INPUT, layers_of
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.ops.work import Shape
from tutelage.dpu.predict.operations import Operation, operations_of
from tutelage.dpu.xmodel.graph import Graph

PORT_BYTES_PER_CYCLE = 32
"""Most bytes that a core reads from memory per cycle: two 128-bit data ports (PG338)."""


def work(operation: Operation, inputs: Sequence[Shape], array: DpuArray = B4096) -> int | None:
    """Return an operation's work by the rules of `workload_on_arch`; None if it is free.

    Parameters
    ----------
    inputs : shapes of its inputs, which sums and products read value by value
    """
    kind = op_type(operation.kind)
    if kind.free or operation.kind == INPUT:
        return None
    return kind.work(operation, inputs, array)


def compute_cycles(operation: Operation, inputs: Sequence[Shape], array: DpuArray = B4096) -> float:
    """Return the least cycles in which a core computes the operation, idle lanes included.

    Parameters
    ----------
    inputs : as for `work`
    """
    kind = op_type(operation.kind)
    if kind.free or operation.kind == INPUT:
        return 0.0  # the same bytes in another shape, or written to their place
    return kind.cycles(operation, inputs, array)


@dataclass(frozen=True)
class Bound:
    """The lower bound of an operation on one core.

    Attributes
    ----------
    work : result of `work`
    computing, loading : cycles in which the array computes, and in which the parameters, one byte
        each, are loaded from memory
    """

    work: int | None
    computing: float
    loading: float

    @property
    def cycles(self) -> float:
        """The larger of the two."""
        return max(self.computing, self.loading)


def bounds(operations: list[Operation], array: DpuArray = B4096) -> list[Bound | None]:
    """Return the bound of each operation; None for operations that the DPU does not compute."""
    found: list[Bound | None] = []
    for operation in operations:
        inputs = [operations[place].output for place in operation.sources]
        loading = operation.parameters / PORT_BYTES_PER_CYCLE
        found.append(
            Bound(work(operation, inputs, array), compute_cycles(operation, inputs, array), loading)
            if operation.on_dpu
            else None
        )
    return found


def add_cycles(facts: dict[str, Any], graph: Graph) -> None:
    """Add the bounds of each layer to the facts of `tutelage.dpu.inspect.describe`.

    Nothing is added if the DPU or the size of its array is unknown.
    """
    facts["cycles_are"] = "lower bounds for one core by dpu/predict/cycles.py, not measured"
    if foreign(graph) is not None:
        return
    try:
        array = array_of(next(iter(fingerprints_of(graph)), None))
    except UnsupportedError as error:
        facts["notes"].append(f"{error}: cycles are omitted")
        return
    found = bounds(operations_of(layers_of(graph)), array)
    total = sum(bound.cycles for bound in found if bound)
    for layer, bound in zip(facts["layers"], found, strict=True):
        if bound is not None:
            layer["work_on_array"], layer["cycles"] = bound.work, bound.cycles
            layer["array_cycles"], layer["memory_cycles"] = bound.computing, bound.loading
            layer["array_share"] = bound.cycles / total if total else 0.0
