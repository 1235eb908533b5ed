"""Compute sums, products and concats of moved values before the values are moved.

So networks with channels last, or that separate groups of channels by a view, get maps in the
DPU's order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from tutelage.host.quantise.graph.copies import plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.moved import Moved, is_moving, moved, moved_alike
from tutelage.host.quantise.graph.operations import cat_axis, cat_parts, operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.relu_first import is_pointwise


def _binary(graph: Graph, node: fx.Node) -> bool:
    name = operation(node)
    operands: list[Any] = list(node.args[:2])
    if name not in ("add", "mul", "maximum", "minimum") or len(operands) != 2 or node.kwargs:
        return False
    if not all(isinstance(given, fx.Node) and is_moving(graph, given) for given in operands):
        return False
    first, second = (moved(graph, given) for given in operands)
    if first is None or second is None or first.size[0] != second.size[0]:
        return False
    if first.pixels < second.pixels:
        operands, (first, second) = operands[::-1], (second, first)
    if not _go_together(graph, node, first, second):
        return False
    new = graph.before(node, getattr(torch, name), *_maps(graph, node, first, second))
    placed = moved_alike(graph, node, new, first.positions, operands[0])
    if placed is None:
        return False
    graph.substitute(node, placed)
    return True


def _go_together(graph: Graph, node: fx.Node, first: Moved, second: Moved) -> bool:
    """Return whether each value of the first meets the value at the same place of the second."""
    shape = graph.shape(node)[1:]
    if first.positions.shape != shape or first.positions.numel() != first.size[0] * first.pixels:
        return False
    if len(second.positions.shape) != len(shape):
        return False
    if second.pixels == 1:
        wanted = first.positions // first.pixels
    elif second.size == first.size:
        wanted = first.positions
    else:
        return False
    return bool((second.positions == wanted).all())


def _maps(graph: Graph, node: fx.Node, *values: Moved) -> list[fx.Node]:
    """Return the roots, all as maps if one of them is a map."""
    rank = max(len(graph.shape(value.root)) for value in values)
    return [
        value.root if len(graph.shape(value.root)) == rank
        else graph.before(node, torch.reshape, value.root, (-1, value.size[0], 1, 1))
        for value in values
    ]  # fmt: skip


def _concat(graph: Graph, node: fx.Node) -> bool:
    """Move a concat along the axis of the channels before the movements of its parts."""
    if operation(node) != "cat" or not any(is_moving(graph, part) for part in cat_parts(node)):
        return False
    if len(graph.shape(node)) in (2, 4) and cat_axis(node) == 1:
        return False
    parts = [moved(graph, part) for part in cat_parts(node)]
    if any(p is None or p.positions.numel() != p.size[0] * p.pixels for p in parts):
        return False
    whole: list[Moved] = [part for part in parts if part is not None]
    if len({part.size[1:] for part in whole}) != 1:
        return False
    places, before = list[Tensor](), 0
    for part in whole:
        places.append(part.positions + before)
        before += part.size[0] * part.pixels
    wanted = torch.cat(places, cat_axis(node) - 1)
    new = graph.before(node, torch.cat, _maps(graph, node, *whole), 1)
    placed = moved_alike(graph, node, new, wanted, cat_parts(node)[0])
    if placed is None:
        return False
    graph.substitute(node, placed)
    return True


def _factors(graph: Graph, node: fx.Node) -> bool:
    """Move factors and summands of a value that is not a map before its movements."""
    affine, shape = graph.module_of(node), graph.shape(node)
    if not isinstance(affine, Affine) or len(shape) in (2, 4):
        return False
    source = graph.source(node)
    sizes = (-1, *[1] * (len(shape) - 2))
    new = affine_of_root(
        graph, node, source, affine.scale.view(sizes), affine.shift.view(sizes), *affine.trained
    )
    if new is None:
        return False
    graph.substitute(node, new)
    return True


def _activation(graph: Graph, node: fx.Node) -> bool:
    """Move an activation before the movements of its operand."""
    activation = graph.module_of(node)
    if not is_pointwise(activation) or not is_moving(graph, source := graph.source(node)):
        return False
    found = moved(graph, source)
    if found is None or found.positions.numel() != found.size[0] * found.pixels:
        return False
    assert activation is not None
    new = graph.before(node, plain_copy(activation), found.root, name=graph.name_of(node))
    placed = moved_alike(graph, node, new, found.positions, source)
    if placed is None:
        return False
    graph.substitute(node, placed)
    return True


def affine_of_root(
    graph: Graph, node: fx.Node, value: fx.Node, scale: Any, shift: Any, *trained: Any
) -> fx.Node | None:
    """Apply factors and summands to the channels of a map before it is moved.

    Return the moved result; None if `value` is not moved, or a constant varies within a channel.

    Parameters
    ----------
    node : before which nodes are inserted
    value : the moved value
    scale, shift : constants that can be broadcast to the value
    trained : see `Affine`
    """
    found = moved(graph, value) if is_moving(graph, value) else None
    if found is None or found.positions.numel() != found.size[0] * found.pixels:
        return None
    factors, summands = (_by_root(given, found) for given in (scale, shift))
    if factors is None or summands is None:
        return None
    affine = Affine(factors, summands, scale, shift, *trained)
    new = graph.before(node, affine, found.root, name=node.name)
    return moved_alike(graph, node, new, found.positions, value)


def _by_root(given: Any, found: Moved) -> Tensor | None:
    """Return a constant as a number for each channel of the root; None if it varies within one."""
    constant = torch.as_tensor(given, dtype=torch.float32).detach().cpu()
    shape = found.positions.shape
    if constant.dim() > len(shape):
        if len(constant) != 1:
            return None
        constant = constant[0]
    spread = constant.broadcast_to(shape).flatten()
    channels = (found.positions // found.pixels).flatten()
    values = torch.zeros(found.size[0]).scatter_(0, channels, spread)
    return values if torch.equal(values[channels], spread) else None


MOVED_ACTIVATIONS = GraphPass("activations of moved values", _activation)
MOVED_FACTORS = GraphPass("factors of moved values", _factors)
MOVED_OPERANDS = GraphPass("sums and products of moved values", _binary)
MOVED_CONCATS = GraphPass("concats of moved values", _concat)
