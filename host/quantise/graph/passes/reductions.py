"""Means, sums and maxima over a map become pools."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import frozen
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.moved import moved
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    name = operation(node)
    if name not in ("mean", "sum", "amax", "max"):
        return False
    axes: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    keeps = bool(node.kwargs.get("keepdim", node.args[2] if len(node.args) > 2 else False))
    source = graph.source(node)
    rank = len(graph.shape(source))
    if axes is None or len(node.all_input_nodes) != 1 or rank not in (3, 4):
        return False
    wanted = {int(axis) % rank for axis in (axes if isinstance(axes, list | tuple) else [axes])}
    root, pooled = _pooled(graph, source, wanted)
    if root is None or pooled is None:
        return False
    values = [node]
    if name == "max":  # gives values and positions
        values = list(node.users)
        if not all(u.target is operator.getitem and u.args[1] == 0 for u in values):
            return False
    shape = graph.shape(values[0])
    if keeps and len(shape) != rank:
        return False
    _replace(graph, node, values, root, _pool(name, pooled, graph.shape(root)), name, shape)
    return True


def _pooled(
    graph: Graph, source: fx.Node, axes: set[int]
) -> tuple[fx.Node | None, tuple[bool, bool] | None]:
    """The map that is pooled, and whether over its rows and over its columns."""
    shape = graph.shape(source)
    if len(shape) == 4 and axes and axes <= {2, 3}:
        return source, (2 in axes, 3 in axes)
    found = moved(graph, source)
    if found is None or not found.is_in_order() or len(graph.shape(found.root)) != 4:
        return None, None
    if len(shape) == 3 and axes == {2} and shape[1] == found.size[0]:
        return found.root, (True, True)
    return None, None


def _pool(name: str, axes: tuple[bool, bool], shape: tuple[int, ...]) -> nn.Module:
    average = name in ("mean", "sum")
    if axes == (True, True):
        return nn.AdaptiveAvgPool2d(1) if average else nn.AdaptiveMaxPool2d(1)
    kernel = shape[2] if axes[0] else 1, shape[3] if axes[1] else 1
    return nn.AvgPool2d(kernel) if average else nn.MaxPool2d(kernel)


def _replace(
    graph: Graph, node: fx.Node, values: list[fx.Node], root: fx.Node, pool: nn.Module, name: str,
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    new = graph.before(node, pool, root, name=node.name)
    if name == "sum":
        pixels = (
            torch.Size(graph.shape(root)[2:]).numel() / torch.Size(graph.shape(new)[2:]).numel()
        )
        factor = torch.full((graph.shape(new)[1],), pixels)
        new = graph.before(node, Affine(factor, torch.zeros_like(factor)), new)
    if graph.shape(new) != shape:
        new = graph.before(node, torch.reshape, new, shape)
    for value in values:
        graph.substitute(value, new)
    if not node._erased:
        graph.module.graph.erase_node(node)


def _over_channels(graph: Graph, node: fx.Node) -> bool:
    """The mean or sum over channels is a 1x1 convolution with equal weights."""
    name, shape = operation(node), graph.shape(node)
    if name not in ("mean", "sum") or len(node.all_input_nodes) != 1:
        return False
    source = graph.source(node)
    axes: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if axes not in (1, -3, [1], (1,)) or len(graph.shape(source)) != 4 or len(shape) != 4:
        return False
    channels = graph.shape(source)[1]
    conv = nn.Conv2d(channels, 1, 1, bias=False)
    value = 1 / channels if name == "mean" else 1.0
    conv.weight = frozen(torch.full((1, channels, 1, 1), value))
    graph.replace(node, conv, source, name=node.name)
    return True


REDUCTIONS = GraphPass("means over maps", _rewrite)
OVER_CHANNELS = GraphPass("means over channels", _over_channels)
