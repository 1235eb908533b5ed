"""Rewrite maxima of two values, and over channels, to maximum pools over blocks of pixels.

A pixel shuffle places channels side by side, where a pool computes the maximum. Unlike
a + relu(b - a), this involves no rounding.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine, ChannelSelect
from tutelage.host.quantise.graph.operations import operation, reduced_axes
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_MOST = 4
"""Largest side of the blocks for a pool, whose square is the growth of the map before it."""


def _of_two(graph: Graph, node: fx.Node) -> bool:
    name, operands = operation(node), list(node.args[:2])
    if name not in ("maximum", "minimum", "max", "min") or len(operands) != 2:
        return False
    shape = graph.shape(node)
    if len(shape) not in (2, 4) or not all(isinstance(given, fx.Node) for given in operands):
        return False
    if any(graph.shape(given) != shape for given in operands):  # type: ignore[arg-type]
        return False
    values: list[Any] = operands
    if name.startswith("min"):
        values = [_negated(graph, node, value) for value in values]
    channels = shape[1]
    both = graph.before(node, torch.cat, values, 1)
    new = _largest(graph, node, both, [[c, channels + c] for c in range(channels)])
    if name.startswith("min"):
        new = _negated(graph, node, new)
    graph.note(f"{node.name}: {name} of two values becomes a pixel shuffle and a pool, which cost "
               "time")  # fmt: skip
    graph.substitute(node, new)
    return True


def _over_channels(graph: Graph, node: fx.Node) -> bool:
    """Rewrite the maximum or minimum over the channels of a map."""
    name = operation(node)
    if name not in ("amax", "max", "amin", "min") or len(node.all_input_nodes) != 1:
        return False
    source, found = graph.source(node), reduced_axes(node)
    rank = len(graph.shape(source))
    if found is None or rank != 4 or {axis % rank for axis in found[0]} != {1}:
        return False
    values = [node]
    if name in ("max", "min"):  # these return values and positions
        values = list(node.users)
        if not all(u.target is operator.getitem and u.args[1] == 0 for u in values):
            return False
    shape = graph.shape(values[0])
    given = _negated(graph, node, source) if name.endswith("min") else source
    new = _largest(graph, node, given, [[*range(graph.shape(source)[1])]])
    new = _negated(graph, node, new) if name.endswith("min") else new
    if graph.shape(new) != shape:
        new = graph.before(node, torch.reshape, new, shape)
    graph.note(f"{node.name}: {name} over channels becomes pixel shuffles and pools, which cost "
               "time")  # fmt: skip
    for value in values:
        graph.substitute(value, new)
    if not node._erased:
        graph.module.graph.erase_node(node)
    return True


def _negated(graph: Graph, node: fx.Node, value: fx.Node) -> fx.Node:
    ones = torch.ones(graph.shape(value)[1])
    return graph.before(node, Affine(-ones, 0 * ones), value, name=node.name)


def _largest(graph: Graph, node: fx.Node, value: fx.Node, groups: list[list[int]]) -> fx.Node:
    """Return the maximum of each group of channels, all of equal size, as one channel."""
    is_vector = len(graph.shape(value)) == 2
    if is_vector:
        value = graph.before(node, nn.Unflatten(1, (graph.shape(value)[1], 1, 1)), value)
    while (size := len(groups[0])) > 1:
        side = min(math.ceil(math.sqrt(size)), _MOST)
        blocks = math.ceil(size / side**2)
        for group in groups:
            group += group[-1:] * (blocks * side**2 - size)
        select = ChannelSelect([channel for group in groups for channel in group])
        value = graph.before(node, select, value, name=node.name)
        value = graph.before(node, nn.PixelShuffle(side), value, name=node.name)
        value = graph.before(node, nn.MaxPool2d(side), value, name=node.name)
        groups = [[*range(n * blocks, (n + 1) * blocks)] for n in range(len(groups))]
    return graph.before(node, torch.flatten, value, 1) if is_vector else value


MAXIMA = GraphPass("maxima of two", _of_two)
MAXIMA_OVER_CHANNELS = GraphPass("maxima over channels", _over_channels)
