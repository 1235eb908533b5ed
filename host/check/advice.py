"""Advice on what to change in a network so that it runs on the DPU, or runs better."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tutelage.dpu.ops.limits import MAX_KERNEL
from tutelage.dpu.ops.registry import type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.host.check.accuracy import Accuracy

TOLERABLE_LOSS = 1.0
"""Largest loss of accuracy or agreement that gets no advice, percentage points."""


def remedies(graph: Graph, on_cpu: Mapping[str, str]) -> dict[str, str]:
    """Return a remedy for each op of a quantised graph that is left to the CPU.

    Parameters
    ----------
    on_cpu : op name -> the reason why the DPU does not compute it

    Returns
    -------
    Op name -> remedy; "" where a change to another op is enough.
    """
    ops = {op.get_name(): op for op in graph.get_ops()}
    return {name: _remedy(ops[name], on_cpu) for name in on_cpu if name in ops}


def _remedy(op: Op, on_cpu: Collection[str]) -> str:
    if type_of(op).nonlinear and op.get_input_op("input").get_name() in on_cpu:
        return ""  # the DPU computes it as part of the op before it, which has its own remedy
    if not op.get_input_num("weights") and not type_of(op).dense:
        return _remedy_without_weights(op, on_cpu)
    if _is_dense(op):
        size = f"{MAX_KERNEL}x{MAX_KERNEL}"
        return f"pool the map before this dense layer, to at most {size} (AdaptiveAvgPool2d)"
    return _CHANGE


def _remedy_without_weights(op: Op, on_cpu: Collection[str]) -> str:
    """Return the remedy for an op without weights, such as a pool or a sum."""
    if op.has_attr("kernel"):
        if _is_over_whole_map(op):
            return (
                "make the map smaller before it (stride=2, MaxPool2d(2)), or average in two steps "
                "(AvgPool2d(8), then AdaptiveAvgPool2d(1))"
            )
        return _CHANGE
    given = [_rounded(one) for ops in op.get_input_ops().values() for one in ops]
    before = {one.get_name() for one in given if one.get_type() != "const"}
    # For example the factor of a pool: the DPU may compute it once its inputs are on the DPU.
    return "change the op before it" if before <= set(on_cpu) else _CHANGE


def _rounded(op: Op) -> Op:
    """Return the op whose value a fix op rounds; any other op is returned unchanged."""
    return _rounded(op.get_input_op("input")) if op.get_type() == "fix" else op


_CHANGE = "change it to an op that the DPU has, or export with --allow-cpu (the CPU is much slower)"


def _is_dense(op: Op) -> bool:
    """Return whether an op multiplies a whole map by a matrix."""
    if type_of(op).dense:
        return True
    return op.has_attr("kernel") and _is_over_whole_map(op)


def _is_over_whole_map(op: Op) -> bool:
    width, height = op.get_attr("kernel")
    return op.get_input_tensor("input", 0).dims[1:3] == [height, width] != [1, 1]


def about_accuracy(found: Accuracy) -> Iterator[str]:
    """Yield advice where replacements or quantisation lose more than `TOLERABLE_LOSS`."""
    unit = "% of the images change class"
    if found.float_accuracy is not None:
        unit = "points of accuracy are lost"
    if found.lost_by_replacing > TOLERABLE_LOSS:
        yield (
            f"{found.lost_by_replacing:.1f} {unit} by the replacements, before quantisation: "
            "train the network with them first (method float), or fine-tune the student from these "
            "weights (qat, or qkd with this network as its teacher)"
        )
    if found.lost_by_quantising > TOLERABLE_LOSS:
        yield (
            f"{found.lost_by_quantising:.1f} {unit} by quantisation alone: `tutelage sensitivity` "
            "shows in which layers; fine-tune from these weights with method qat, or with qkd"
        )
