"""Make the outputs one tuple, and remove activations at the end, which the CPU computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.moved import ANY_RANK, chain_of, moved
from tutelage.host.quantise.graph.operations import cat_axis, operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Softmax: "softmax", nn.LogSoftmax: "softmax", nn.Softmax2d: "softmax",
    nn.Sigmoid: "sigmoid", nn.LogSigmoid: "sigmoid",
}  # fmt: skip

_OF_LOG: dict[type[nn.Module], type[nn.Module]] = {
    nn.Softmax: nn.LogSoftmax, nn.Sigmoid: nn.LogSigmoid,
}  # fmt: skip


def _flatten(graph: Graph, node: fx.Node) -> bool:
    """Flatten outputs in dictionaries, nested tuples and named tuples to one tuple, in order."""
    if node.op != "output":
        return False
    given: Any = node.args[0]
    if isinstance(given, fx.Node) and not _is_named_tuple(given):
        return False
    flat = tuple(_leaves(given))
    if given == flat:
        return False
    node.args = (flat,)
    return True


def _is_named_tuple(given: Any) -> bool:
    return isinstance(given, fx.Node) and isinstance(given.target, type)


def _leaves(given: Any) -> Iterator[Any]:
    if given is None:  # such as an auxiliary output that exists in training only
        return
    if _is_named_tuple(given):
        given = [*given.args, *given.kwargs.values()]
    elif isinstance(given, dict):
        given = list(given.values())
    if not isinstance(given, list | tuple):
        yield given
        return
    for part in given:
        yield from _leaves(part)


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if node.op != "output":
        return False
    returned: Any = node.args[0]
    outputs = returned if isinstance(returned, list | tuple) else (returned,)
    changed = False
    for place, given in enumerate(outputs):
        changed |= isinstance(given, fx.Node) and _strip(graph, given, place)
    return changed


def _strip(graph: Graph, value: fx.Node, place: int) -> bool:
    """Remove the activation at the end of an output, or of all parts of a concat there."""
    end = chain_of(graph, value)[-1]
    if operation(end) != "cat":
        found = [_activation(graph, value)]
    else:
        parts: Any = end.args[0]
        found = [_activation(graph, part) for part in parts]
        if not _is_read_once(graph, value, end) or any(part[1] == cat_axis(end) for part in found):
            return False
    cls, axis = found[0][0], found[0][1]
    if cls is None or any(part[:2] != (cls, axis) for part in found):
        return False
    if axis and operation(end) == "cat":
        axis = _axis_of(graph, value, end, axis)
    if axis is None or place in graph.stripped:
        return False
    graph.activations[place] = name = _ACTIVATIONS[cls]
    graph.stripped[place] = cls(axis) if axis else cls()
    graph.note(f"{value.name}: the {name} at the end runs on the CPU")
    for _, _, node in found:
        if not node._erased:
            graph.substitute(node, graph.source(node))
    return True


def _activation(graph: Graph, value: fx.Node) -> tuple[Any, int | None, fx.Node]:
    """Return the class of the activation at the end of a value, its axis (0: none) and its node.

    The class is None if there is no activation, or another node reads it too.
    """
    node = chain_of(graph, value)[-1]
    if operation(node) == "log" and (new := _log(graph, node)) is not None:
        value, node = new if value is node else value, new
    module: Any = graph.module_of(node)
    cls: Any = type(module)
    if cls not in _ACTIVATIONS or not _is_read_once(graph, value, node):
        return None, None, node
    rank = len(graph.shape(node))
    if cls in (nn.Sigmoid, nn.LogSigmoid):
        return cls, 0, node
    if cls is nn.Softmax2d:
        return nn.Softmax, _axis_of(graph, value, node, rank - 3), node
    dims = _dims(module)
    axis = int(rank in (2, 4)) if dims == (None,) else dims[0] % rank  # PyTorch's own choice
    return cls, _axis_of(graph, value, node, axis) if axis else None, node


def _log(graph: Graph, node: fx.Node) -> fx.Node | None:
    """Replace the logarithm of a softmax or sigmoid by one module; return None for others."""
    inner = graph.source(node)
    module: Any = graph.module_of(inner)
    cls = _OF_LOG.get(type(module))
    if cls is None or not graph.has_one_reader(inner):
        return None
    graph.substitute(inner, graph.source(inner))
    return graph.replace(node, cls(*_dims(module)), name=node.name)


def _dims(module: Any) -> tuple[Any, ...]:
    return (module.dim,) if hasattr(module, "dim") else ()


def _is_read_once(graph: Graph, value: fx.Node, node: fx.Node) -> bool:
    """Return whether only one chain of movements leads from a node to a value."""
    return all(map(graph.has_one_reader, {*chain_of(graph, value), node}))


def _axis_of(graph: Graph, value: fx.Node, node: fx.Node, axis: int) -> int | None:
    """Return where an axis of a node is after the movements to a value; None if it is split."""
    if value is node:
        return axis
    found = moved(graph, value, ANY_RANK)
    if found is None:
        return None
    sizes = graph.shape(node)[1:]
    stride, size = torch.Size(sizes[axis:]).numel(), sizes[axis - 1]
    along = found.positions // stride % size
    others = found.positions - along * stride
    for place, length in enumerate(found.positions.shape):
        first = others.narrow(place, 0, 1)
        steps = torch.arange(length).view(-1, *[1] * (others.dim() - place - 1))
        if length == size and bool((others == first).all() and (along == steps).all()):
            return place + 1
    return None


FLAT_OUTPUTS = GraphPass("outputs as one tuple", _flatten)
OUTPUT_ACTIVATION = GraphPass("activation at the end", _rewrite)
