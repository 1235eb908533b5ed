"""How many cycles the DPU's array needs at least: lower bounds that follow from its shape.

Counted are the cycles in which the array of one core computes, with the idle lanes that its shape
costs, and the cycles in which the parameters come from memory; the slower of the two is taken.
Feature maps that go to memory and back, instructions and everything that is not hidden behind the
array come on top, so a real run takes longer: `tutelage.dpu.predict.latency` predicts how long.
Rules that were not seen in a compiled file are assumptions and say so.

The rules of each op type are in its file in dpu/ops, what they share in dpu/ops/work.py.
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
"""Bytes that a core reads from memory per cycle at most: two data ports of 128 bits (PG338)."""


def work(operation: Operation, inputs: Sequence[Shape], array: DpuArray = B4096) -> int | None:
    """Work of an operation by the rules of `workload_on_arch`; None for what costs none.

    Parameters
    ----------
    inputs : shapes of what it reads, which sums and products take value by value
    """
    kind = op_type(operation.kind)
    if kind.free or operation.kind == INPUT:
        return None
    return kind.work(operation, inputs, array)


def compute_cycles(operation: Operation, inputs: Sequence[Shape], array: DpuArray = B4096) -> float:
    """Least cycles in which a core computes the operation, idle lanes included.

    Parameters
    ----------
    inputs : as of `work`
    """
    kind = op_type(operation.kind)
    if kind.free or operation.kind == INPUT:
        return 0.0  # the same bytes under another shape, or written to their place
    return kind.cycles(operation, inputs, array)


@dataclass(frozen=True)
class Bound:
    """The least that one core needs for an operation.

    Attributes
    ----------
    work : as `work` counts it
    computing, loading : cycles in which the array computes, and in which the parameters, one byte
        each, come from memory
    """

    work: int | None
    computing: float
    loading: float

    @property
    def cycles(self) -> float:
        """The slower of the two."""
        return max(self.computing, self.loading)


def bounds(operations: list[Operation], array: DpuArray = B4096) -> list[Bound | None]:
    """The bound of each operation; None for what the DPU does not compute."""
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
    """Add the bounds of each layer to what `tutelage.dpu.inspect.describe` tells of a graph.

    There are none where the DPU or the size of its array is not known.
    """
    facts["cycles_are"] = "lower bounds for one core by dpu/predict/cycles.py, not measured"
    if foreign(graph) is not None:
        return
    try:
        array = array_of(next(iter(fingerprints_of(graph)), None))
    except UnsupportedError as error:
        facts["notes"].append(f"{error}: no cycles")
        return
    found = bounds(operations_of(layers_of(graph)), array)
    total = sum(bound.cycles for bound in found if bound)
    for layer, bound in zip(facts["layers"], found, strict=True):
        if bound is not None:
            layer["work_on_array"], layer["cycles"] = bound.work, bound.cycles
            layer["array_cycles"], layer["memory_cycles"] = bound.computing, bound.loading
            layer["array_share"] = bound.cycles / total if total else 0.0
