"""Rewrite padding along the channels, and concats with zeros, to selections of channels."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import ChannelSelect
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if operation(node) == "pad":
        return _pad(graph, node)
    if operation(node) != "cat" or not isinstance(node.args[0], list | tuple):
        return False
    if node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0) not in (1, -3):
        return False
    parts: list[Any] = list(node.args[0])
    values = [part for part in parts if graph.constant(part) is None]
    zeros = [part for part in parts if _is_zero(graph, part)]
    if len(values) != 1 or not zeros or len(values) + len(zeros) != len(parts):
        return False
    channels = list[int]()
    for part in parts:
        count = graph.shape(part)[1]
        channels += range(count) if part is values[0] else [-1] * count
    graph.replace(node, ChannelSelect(channels), values[0], name=node.name)
    return True


def _is_zero(graph: Graph, part: Any) -> bool:
    constant = graph.constant(part)
    return constant is not None and not constant.any()


def _pad(graph: Graph, node: fx.Node) -> bool:
    defaults = {"mode": "constant", "value": None}
    names = ("input", "pad", "mode", "value")
    given: dict[str, Any] = {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}
    source, pads, mode, value = (given[name] for name in names)
    if len(pads) != 6 or len(graph.shape(source)) != 4 or mode != "constant" or value:
        return False
    left, right, top, bottom, before, after = (int(pad) for pad in pads)
    if min(before, after) < 0:
        return False
    channels = [*[-1] * before, *range(graph.shape(source)[1]), *[-1] * after]
    padded = graph.before(node, nn.ZeroPad2d((left, right, top, bottom)), source, name=node.name)
    graph.replace(node, ChannelSelect(channels), padded, name=node.name)
    return True


ZERO_CHANNELS = GraphPass("channels of zeros", _rewrite)
