"""Move activations before operations that only select or move values, to the layer before."""

from __future__ import annotations

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import ChannelSelect
from tutelage.host.quantise.graph.operations import is_movement, operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

MONOTONE = (nn.ReLU, nn.Hardtanh, nn.LeakyReLU, nn.Hardsigmoid)
"""Activations that keep the order of values (ReLU6 is a Hardtanh)."""

POINTWISE = (
    *MONOTONE, nn.Hardswish, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.CELU, nn.Mish, nn.Sigmoid,
    nn.Tanh, nn.Softplus,
)  # fmt: skip
"""Activations that compute each value from one value, with the same function."""


def is_pointwise(module: nn.Module | None) -> bool:
    """Return whether a module is one of `POINTWISE`."""
    return isinstance(module, POINTWISE)


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    activation = graph.module_of(node)
    if not isinstance(activation, POINTWISE) or not node.all_input_nodes:
        return False
    before = graph.source(node)
    if not graph.has_one_reader(before) or not _passes(graph, before, activation):
        return False
    if operation(before) == "cat":
        _before_each(graph, node, before, activation)
    else:
        given = graph.source(before)
        if not graph.shape(given):
            return False
        moved = graph.before(before, plain_copy(activation), given, name=graph.name_of(node))
        before.replace_input_with(given, moved)
    graph.substitute(node, before)
    return True


def _passes(graph: Graph, before: fx.Node, activation: nn.Module) -> bool:
    """Return whether the activation can be moved before the node."""
    if operation(before) == "cat":
        return isinstance(activation, MONOTONE) and _worthwhile(graph, before)
    if is_movement(before):
        return True
    module = graph.module_of(before)
    if isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
        return isinstance(activation, MONOTONE)
    if isinstance(module, nn.Upsample):
        return module.mode == "nearest"
    if isinstance(module, nn.ZeroPad2d):
        return _keeps_zero(activation)
    if isinstance(module, ChannelSelect):
        keeps = min(module.channels) >= 0 or _keeps_zero(activation)
        return keeps and (module.is_permutation() or graph.has_one_reader(graph.source(before)))
    return False


def _keeps_zero(activation: nn.Module) -> bool:
    return activation(torch.zeros(1)).item() == 0


def _worthwhile(graph: Graph, concat: fx.Node) -> bool:
    """Return whether a part of a concat is the result of a layer that can join the activation."""
    return any(
        graph.has_one_reader(part) and (graph.module_of(part) is not None or operation(part))
        for part in concat.all_input_nodes
    )


def _before_each(graph: Graph, node: fx.Node, concat: fx.Node, activation: nn.Module) -> None:
    for part in dict.fromkeys(concat.all_input_nodes):
        moved = graph.before(concat, plain_copy(activation), part, name=graph.name_of(node))
        concat.replace_input_with(part, moved)


RELU_FIRST = GraphPass("activations before pools and concats", _rewrite)
