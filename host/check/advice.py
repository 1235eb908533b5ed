"""What to change in a network so that it runs on the DPU, or runs there better."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tutelage.dpu.ops.limits import MAX_KERNEL
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.host.check.accuracy import Accuracy

TOLERABLE_LOSS = 1.0
"""Points of accuracy, or of agreement with the float network, that need no advice."""


def remedies(graph: Graph, on_cpu: Mapping[str, str]) -> dict[str, str]:
    """Return what to do about each op of a quantised graph that is left to the CPU."""
    ops = {op.get_name(): op for op in graph.get_ops()}
    return {name: _remedy(ops[name], on_cpu) for name in on_cpu if name in ops}


def _remedy(op: Op, on_cpu: Collection[str]) -> str:
    if type_of(op).nonlinear and op.get_input_op("input").get_name() in on_cpu:
        return ""  # the DPU has it at the end of what comes before, which is to be changed
    if _is_dense(op):
        size = f"{MAX_KERNEL}x{MAX_KERNEL}"
        return f"pool the map before this dense layer, to at most {size} (AdaptiveAvgPool2d)"
    return "change it to what the DPU has, or export with --allow-cpu: the CPU takes far longer"


def _is_dense(op: Op) -> bool:
    """Whether an op multiplies a whole map by a matrix."""
    if type_of(op).dense:
        return True
    if not op.has_attr("kernel"):
        return False
    width, height = op.get_attr("kernel")
    return op.get_input_tensor("input", 0).dims[1:3] == [height, width] != [1, 1]


def about_accuracy(found: Accuracy) -> Iterator[str]:
    """Yield what to do where quantisation costs too much."""
    if found.float_accuracy is None or found.quantised_accuracy is None:
        loss, what = 100 - found.agreement, "% of the images change their class"
    else:
        loss, what = found.float_accuracy - found.quantised_accuracy, "points of accuracy are lost"
    if loss > TOLERABLE_LOSS:
        yield (
            f"{loss:.1f} {what} by quantisation alone: `tutelage sensitivity` shows where; "
            "fine-tune from these weights with method qat, or qkd with a teacher"
        )
