"""The operation of an fx node, written as a function, a method, an operator or an ATen op."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from tutelage.host.quantise.graph.values import VALUE

MOVEMENTS = frozenset(
    """chunk channel_shuffle contiguous expand expand_as flatten flip getitem index index_select
    moveaxis movedim narrow permute repeat reshape reshape_as roll select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split transpose unbind unflatten
    unsafe_chunk unsafe_split unsqueeze view view_as""".split()
)
"""Operations that only rearrange, reshape or select values of their first operand."""

_ARITHMETIC = (
    "add sub mul div neg truediv subtract multiply divide rsub cat concat concatenate mean sum "
    "amax amin max min maximum minimum matmul square pow"
).split()

_NAMES = (
    "relu relu6 hardtanh clamp clip clamp_min leaky_relu elu selu celu gelu silu mish sigmoid tanh "
    "hardswish hardsigmoid softplus prelu rrelu threshold softmax log_softmax logsigmoid conv1d "
    "conv2d conv_transpose2d linear batch_norm max_pool2d avg_pool2d adaptive_avg_pool2d "
    "adaptive_max_pool2d interpolate upsample pad dropout dropout1d dropout2d dropout3d "
    "alpha_dropout feature_dropout feature_alpha_dropout pixel_shuffle clone detach to float "
    "log stack hstack max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d "
    "conv_transpose1d"
).split()

_SYNONYMS = {
    "truediv": "div", "subtract": "sub", "multiply": "mul", "divide": "div", "concat": "cat",
    "concatenate": "cat", "clip": "clamp", "iadd": "add", "isub": "sub", "imul": "mul",
    "itruediv": "div", "swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim",
    "feature_dropout": "dropout",
}  # fmt: skip

_IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def _functions() -> dict[object, str]:
    """Return function -> name of its operation, for all functions of torch, F and operator."""
    found: dict[object, str] = {}
    for name in (*MOVEMENTS, *_ARITHMETIC, *_NAMES):
        for place in (torch, F, operator):
            for spelling in (name, f"{name}_"):
                function = getattr(place, spelling, None)
                if function is not None:
                    found.setdefault(function, name)
    return found


_BY_FUNCTION = _functions()


def operation(node: fx.Node) -> str:
    """Return the name of a function or method node's operation; "" for other nodes."""
    if node.op == "call_method":
        name = str(node.target)
    elif node.op == "call_function":
        if isinstance(node.target, torch._ops.OpOverload):
            name = node.target._schema.name.partition("::")[2]
        else:
            name = _BY_FUNCTION.get(node.target, "")
            if node.target in _IN_PLACE:
                name = _BY_FUNCTION[_IN_PLACE[node.target]]
    else:
        return ""
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return _SYNONYMS.get(name, name)


def is_in_place(node: fx.Node) -> bool:
    """Return whether a function or method overwrites its first operand."""
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.is_mutable
    if node.target in _IN_PLACE or _argument_inplace(node):
        return True
    return any(node.target is getattr(place, f"{operation(node)}_", None) for place in (torch, F))


def _argument_inplace(node: fx.Node) -> bool:
    """Return whether the argument `inplace` of a function is set."""
    if "inplace" in node.kwargs or not inspect.isfunction(node.target):
        return bool(node.kwargs.get("inplace"))
    names = list(inspect.signature(node.target).parameters)
    place = names.index("inplace") if "inplace" in names else len(node.args)
    return place < len(node.args) and node.args[place] is True


def out_of_place(node: fx.Node) -> object:
    """Return the target that computes the same without overwriting its operand."""
    if node.op == "call_method":
        return str(node.target)[:-1]
    if node.target in _IN_PLACE:
        return _IN_PLACE[node.target]
    name = operation(node)
    if isinstance(node.target, torch._ops.OpOverload):
        packet = getattr(torch.ops.aten, name, None)
        return getattr(packet, node.target._overloadname, node.target)
    if node.target is getattr(torch, f"{name}_", None):
        return getattr(torch, name)
    return getattr(F, name, node.target)


def reduced_axes(node: fx.Node) -> tuple[list[int], bool] | None:
    """Return the axes of a reduction, and whether they are kept; None if it is over all axes."""
    axes: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    keeps = bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))
    if isinstance(axes, int):
        axes = [axes]
    known = isinstance(axes, list | tuple) and all(isinstance(axis, int) for axis in axes)
    return ([*axes], keeps) if known and axes else None


def cat_parts(node: fx.Node) -> list[fx.Node]:
    """Return the operands of a concat or stack."""
    given: Any = node.args[0] if node.args else node.kwargs["tensors"]
    return list(given)


def cat_axis(node: fx.Node) -> int:
    """Return the axis of a concat, or the new axis of a stack, as a non-negative number."""
    axis: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return int(axis) % len(node.meta[VALUE].shape)


def is_movement(node: fx.Node) -> bool:
    """Return whether a node's operation is one of `MOVEMENTS`."""
    return operation(node) in MOVEMENTS
