"""Rewrite stacks: those that are reduced to sums or maxima, others to concats and reshapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from tutelage.host.quantise.graph.copies import layer_of_pixels
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.moved import is_moving, moved
from tutelage.host.quantise.graph.operations import (
    cat_axis,
    cat_parts,
    operation,
    reduced_axes,
)
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_PAIRS: dict[str, Any] = {
    "sum": torch.add, "mean": torch.add, "amax": torch.maximum, "amin": torch.minimum,
}  # fmt: skip


def _reduced(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a reduction along the new axis of a stack to sums, maxima or minima."""
    name, found = operation(node), reduced_axes(node)
    if name not in _PAIRS or found is None or operation(stack := graph.source(node)) != "stack":
        return False
    axes, keeps = found
    if keeps or {axis % len(graph.shape(stack)) for axis in axes} != {cat_axis(stack)}:
        return False
    total, *others = parts = cat_parts(stack)
    for part in others:
        total = graph.before(node, _PAIRS[name], total, part)
    if name == "mean" and others:
        share = torch.full((graph.shape(total)[1],), 1 / len(parts))
        total = graph.before(node, Affine(share, 0 * share), total, name=node.name)
    graph.substitute(node, total)
    return True


def _as_concat(graph: Graph, node: fx.Node) -> bool:
    """Rewrite any other stack of maps or vectors to a concat of channels and a reshape."""
    if operation(node) == "hstack" and len(graph.shape(node)) > 1:
        graph.replace(node, torch.cat, cat_parts(node), 1)
        return True
    if operation(node) != "stack" or cat_axis(node) == 0:
        return False
    parts, shape = cat_parts(node), graph.shape(cat_parts(node)[0])
    if len(shape) not in (2, 4):
        return False
    joined = graph.before(node, torch.cat, parts, 1)
    apart = graph.before(node, torch.reshape, joined, (shape[0], len(parts), *shape[1:]))
    graph.substitute(node, graph.before(node, torch.movedim, apart, 1, cat_axis(node)))
    return True


def _of_groups(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a sum or mean of groups of channels, separated by a view, to a 1x1 convolution."""
    name, found = operation(node), reduced_axes(node)
    if name not in ("sum", "mean") or found is None or not is_moving(graph, graph.source(node)):
        return False
    axes, keeps = found
    given, source = moved(graph, graph.source(node)), graph.source(node)
    rank, shape = len(graph.shape(source)), graph.shape(node)
    if given is None or keeps or len(axes) != 1 or axes[0] % rank == 0:
        return False
    terms = given.positions.movedim(axes[0] % rank - 1, -1)
    if len(shape) not in (2, 4) or terms.numel() != given.size[0] * given.pixels:
        return False
    channels, within = terms // given.pixels, terms % given.pixels
    if len(shape) == 4 and shape[2:] != given.size[1:]:
        return False
    pixels = torch.arange(given.pixels).view(1, -1, 1)
    rows = channels.reshape(shape[1], -1, terms.shape[-1])
    if rows.shape[1] != given.pixels or not (rows == rows[:, :1]).all():
        return False
    if not (within.reshape(rows.shape) == pixels).all():
        return False
    weight = torch.zeros(shape[1], given.size[0])
    share = 1 / terms.shape[-1] if name == "mean" else 1.0
    weight.scatter_(1, rows[:, 0], share)
    is_map = len(graph.shape(given.root)) == 4
    new = graph.before(node, layer_of_pixels(weight, None, 1, is_map), given.root, name=node.name)
    if len(graph.shape(new)) != len(shape):
        new = graph.before(node, torch.reshape, new, shape)
    graph.substitute(node, new)
    return True


REDUCED_STACKS = GraphPass("sums of stacks", _reduced)
STACKS = GraphPass("stacks as concats", _as_concat)
SUMS_OF_GROUPS = GraphPass("sums of groups of channels", _of_groups)
