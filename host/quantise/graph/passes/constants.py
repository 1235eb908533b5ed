"""Replace values that are computed from parameters and buffers only by constants."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.values import VALUE

_MAX_ELEMENTS = 1 << 28
"""Most elements of a constant, a gigabyte as float32."""

_RANDOM = frozenset(("rand", "randn", "rand_like", "randn_like", "bernoulli", "dropout", "normal"))


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if node.op not in ("call_function", "call_method") or operation(node) in _RANDOM:
        return False
    value = node.meta.get(VALUE)
    if not isinstance(value, Tensor) or value.numel() > _MAX_ELEMENTS:
        return False
    if not _is_constant(graph, node):
        return False
    computed = _computed(graph, node)
    if computed.is_floating_point():
        computed.requires_grad_(_is_trained(graph, node))
    graph.substitute(node, graph.tensor(node, computed, node.name))
    return True


def _is_trained(graph: Graph, node: fx.Node) -> bool:
    """Return whether a constant is computed from a parameter that is trained."""
    own = graph.constant(node)
    if own is not None:
        return own.requires_grad
    return any(_is_trained(graph, given) for given in node.all_input_nodes)


def _is_constant(graph: Graph, node: fx.Node) -> bool:
    """Return whether a node does not depend on the inputs of the network."""
    if node.op == "get_attr":
        return graph.constant(node) is not None
    if node.op not in ("call_function", "call_method"):
        return False
    if not node.all_input_nodes:  # such as torch.zeros in a graph of torch.export
        return isinstance(node.target, torch._ops.OpOverload)
    return all(_is_constant(graph, given) for given in node.all_input_nodes)


@torch.no_grad()
def _computed(graph: Graph, node: fx.Node) -> Any:
    constant = graph.constant(node)
    if constant is not None:
        return constant.detach()
    args, kwargs = map_arg((node.args, node.kwargs), lambda given: _computed(graph, given))
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return cast("Any", node.target)(*args, **kwargs)


CONSTANTS = GraphPass("constants", _rewrite)
