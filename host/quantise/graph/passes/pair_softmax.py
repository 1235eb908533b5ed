"""Rewrite a softmax over two values to the sigmoid of their difference, which can be replaced.

Split attention and selective kernels weight two branches in this way.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import layer_of_pixels
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.moved import moved, moved_alike
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    softmax = graph.module_of(node)
    if not isinstance(softmax, nn.Softmax) or softmax.dim is None:
        return False
    source, shape = graph.source(node), graph.shape(node)
    axis = softmax.dim % len(shape)
    found = moved(graph, source) if axis and shape[axis] == 2 else None
    if found is None or found.positions.numel() != found.size[0] * found.pixels:
        return False
    channels, within = found.positions // found.pixels, found.positions % found.pixels
    others = channels.flip(axis - 1)
    if not torch.equal(within, within.flip(axis - 1)):
        return False
    partner = torch.zeros(found.size[0], dtype=torch.int64)
    partner[channels.flatten()] = others.flatten()
    if not torch.equal(partner[channels], others):
        return False
    weight = torch.eye(found.size[0]) - torch.eye(found.size[0])[partner]
    is_map = len(graph.shape(found.root)) == 4
    layer = layer_of_pixels(weight, None, 1, is_map)
    difference = graph.before(node, layer, found.root, name=f"{node.name}_difference")
    gate = graph.before(node, nn.Sigmoid(), difference, name=graph.name_of(node))
    placed = moved_alike(graph, node, gate, found.positions, source)
    if placed is None:
        return False
    graph.note(f"{node.name}: a softmax over two values is computed as a sigmoid")
    graph.substitute(node, placed)
    return True


PAIR_SOFTMAX = GraphPass("softmax over two values", _rewrite)
