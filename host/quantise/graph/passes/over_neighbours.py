"""Rewrite a convolution along the channels of a vector (as in ECA) to a 1x1 convolution."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.copies import derived
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.moved import is_moving, moved
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    conv = graph.module_of(node)
    if not isinstance(conv, nn.Conv1d) or conv.weight.shape[:2] != (1, 1):
        return False
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.stride != (1,):
        return False
    source = graph.source(node)
    found = moved(graph, source) if is_moving(graph, source) else None
    channels = graph.shape(node)[-1]
    if found is None or not found.is_in_order() or found.size != (channels, 1, 1):
        return False
    if len(graph.shape(found.root)) != 4:
        return False
    new = nn.Conv2d(channels, channels, 1, bias=conv.bias is not None)
    new.weight = derived(_band(conv, channels)[:, :, None, None], conv.weight)
    if conv.bias is not None:
        new.bias = derived(conv.bias.repeat(channels), conv.bias)
    mixed = graph.before(node, new, found.root, name=f"{graph.name_of(node)}_channels")
    graph.replace(node, torch.reshape, mixed, graph.shape(node))
    return True


def _band(conv: nn.Conv1d, channels: int) -> Tensor:
    """Return weights [channels, channels] with those of the convolution around the diagonal."""
    assert isinstance(conv.padding, tuple)
    band = torch.zeros(channels, channels)
    for place, weight in enumerate(conv.weight.flatten().tolist()):
        offset = place * conv.dilation[0] - conv.padding[0]
        band += weight * torch.diag(torch.ones(max(channels - abs(offset), 0)), offset)
    return band


OVER_NEIGHBOURS = GraphPass("convolutions along channels", _rewrite)
