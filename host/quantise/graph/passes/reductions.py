"""Rewrite means, sums and maxima over a map to pools."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import frozen
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.moved import moved, moved_alike
from tutelage.host.quantise.graph.operations import operation, reduced_axes
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    name, reduced = operation(node), reduced_axes(node)
    if name not in ("mean", "sum", "amax", "max") or reduced is None:
        return False
    source = graph.source(node)
    rank = len(graph.shape(source))
    if len(node.all_input_nodes) != 1 or rank < 3:
        return False
    values = [node]
    if name == "max":  # it returns values and positions
        values = list(node.users)
        if not all(u.target is operator.getitem and u.args[1] == 0 for u in values):
            return False
    axes, keeps = {axis % rank for axis in reduced[0]}, reduced[1]
    if rank == 4 and axes <= {2, 3} and (_is_map(graph, source) or len(axes) == 1):
        pool = _pool(name, (2 in axes, 3 in axes), graph.shape(source))
        new = _pooled(graph, node, pool, source, name)
        shape = graph.shape(values[0])
        if graph.shape(new) != shape:
            new = graph.before(node, torch.reshape, new, shape)
    else:
        found = _of_moved(graph, node, source, axes, keeps, name)
        if found is None:
            return False
        new = found
    for value in values:
        graph.substitute(value, new)
    if not node._erased:
        graph.module.graph.erase_node(node)
    return True


def _is_map(graph: Graph, source: fx.Node) -> bool:
    """Return whether the second axis of a value is the channels of its root."""
    found = moved(graph, source)
    return found is None or bool(
        found.positions.shape[0] == found.size[0] and found.positions.flatten()[0] == 0
        and torch.equal(found.positions // found.pixels,
                        torch.arange(found.size[0])[:, None, None].expand_as(found.positions))
    )  # fmt: skip


def _of_moved(
    graph: Graph, node: fx.Node, source: fx.Node, axes: set[int], keeps: bool, name: str
) -> fx.Node | None:
    """Reduce a map over all of its pixels before it is moved; return None if not possible."""
    found = moved(graph, source)
    if found is None or 0 in axes or len(graph.shape(found.root)) != 4:
        return None
    kept = [axis for axis in range(found.positions.dim()) if axis + 1 not in axes]
    ends = [axis - 1 for axis in sorted(axes)]
    terms = found.positions.permute(*kept, *ends).flatten(len(kept))
    channels, within = terms // found.pixels, (terms % found.pixels).sort(-1).values
    whole = terms.shape[-1] == found.pixels and bool(
        (channels == channels[..., :1]).all() and (within == torch.arange(found.pixels)).all()
    )
    if not whole:
        return None
    wanted = channels[..., 0]
    if keeps:
        wanted = wanted.reshape(
            [1 if axis + 1 in axes else size for axis, size in enumerate(found.positions.shape)]
        )
    pool = _pool(name, (True, True), graph.shape(found.root))
    new = _pooled(graph, node, pool, found.root, name)
    return moved_alike(graph, node, new, wanted, source)


def _pool(name: str, axes: tuple[bool, bool], shape: tuple[int, ...]) -> nn.Module:
    average = name in ("mean", "sum")
    if axes == (True, True):
        return nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1)
    kernel = shape[2] if axes[0] else 1, shape[3] if axes[1] else 1
    return nn.AvgPool2d(kernel) if average else nn.MaxPool2d(kernel)


def _pooled(graph: Graph, node: fx.Node, pool: nn.Module, root: fx.Node, name: str) -> fx.Node:
    """Return the result of a pool, multiplied by the number of pixels for a sum."""
    new = graph.before(node, pool, root, name=node.name)
    if name == "sum":
        pixels = (
            torch.Size(graph.shape(root)[2:]).numel() / torch.Size(graph.shape(new)[2:]).numel()
        )
        factor = torch.full((graph.shape(new)[1],), pixels)
        new = graph.before(node, Affine(factor, torch.zeros_like(factor)), new)
    return new


def _over_channels(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a mean or sum over channels to a 1x1 convolution with equal weights."""
    name, shape, reduced = operation(node), graph.shape(node), reduced_axes(node)
    if name not in ("mean", "sum") or reduced is None or len(node.all_input_nodes) != 1:
        return False
    source = graph.source(node)
    if reduced[0] not in ([1], [-3]) or len(graph.shape(source)) != 4:
        return False
    channels = graph.shape(source)[1]
    conv = nn.Conv2d(channels, 1, 1, bias=False)
    value = 1 / channels if name == "mean" else 1.0
    conv.weight = frozen(torch.full((1, channels, 1, 1), value))
    new = graph.before(node, conv, source, name=node.name)
    if graph.shape(new) != shape:
        new = graph.before(node, torch.reshape, new, shape)
    graph.substitute(node, new)
    return True


REDUCTIONS = GraphPass("means over maps", _rewrite)
OVER_CHANNELS = GraphPass("means over channels", _over_channels)
