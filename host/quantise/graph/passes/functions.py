"""Replace functions by the torch.nn modules that compute the same."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import plain_copy
from tutelage.host.quantise.graph.function_modules import ATEN, BUILDERS, Builder
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.operations import is_in_place, operation
from tutelage.host.quantise.graph.passes.flat_norms import frozen_norm
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_OF_TORCH = ("add", "sub", "mul", "div", "cat", "flatten")
"""ATen operations that equal the functions of torch with the same name."""


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    name, of_aten = operation(node), isinstance(node.target, torch._ops.OpOverload)
    if of_aten and name in _OF_TORCH:
        node.target = getattr(torch, name)
        return True
    builder = (ATEN if of_aten and name in ATEN else BUILDERS).get(name)
    if builder is None or is_in_place(node):
        return False
    result = node if graph.shape(node) else _values_alone(node)
    given, module = _made(graph, node, builder)
    if result is None or module is None:
        return False
    new = graph.before(node, module, given, name=_name(graph, node))
    graph.substitute(result, new)
    if result is not node:
        graph.module.graph.erase_node(node)
    return True


def _made(graph: Graph, node: fx.Node, builder: Builder) -> tuple[Any, nn.Module | None]:
    """Return the first operand, and the module that computes the result from it; None: none."""
    given, args, kwargs = _arguments(graph, node)
    try:
        inspect.signature(builder).bind(*args, **kwargs)
    except TypeError:  # arguments that the builder does not support
        return given, None
    module = builder(*args, **kwargs) if isinstance(given, fx.Node) else None
    if isinstance(module, nn.BatchNorm2d):
        if not _is_norm(graph, node):
            return given, frozen_norm(module)
        if len(graph.shape(given)) != 4:
            return given, plain_copy(module, nn.BatchNorm1d)
    return given, module


def _arguments(graph: Graph, node: fx.Node) -> tuple[Any, list[Any], dict[str, Any]]:
    """Return the first operand, and the other arguments with the network's tensors resolved."""
    args = [_tensor(graph, given) for given in node.args]
    kwargs = {name: _tensor(graph, given) for name, given in node.kwargs.items()}
    if args:
        return args[0], args[1:], kwargs
    first = next((name for name in ("input", "self") if name in kwargs), "")
    return kwargs.pop(first, None), args, kwargs


def _values_alone(node: fx.Node) -> fx.Node | None:
    """Return the first result of an operation; None if others (positions of maxima) are read."""
    readers = list(node.users)
    first = len(readers) == 1 and readers[0].target is operator.getitem and readers[0].args[1] == 0
    return readers[0] if first else None


def _tensor(graph: Graph, given: Any) -> Any:
    """Return the network's tensor that a node reads; anything else is returned unchanged."""
    constant = graph.constant(given)
    return given if constant is None else constant


def _name(graph: Graph, node: fx.Node) -> str:
    """Return a name below the user's module that has the parameters, or the node's."""
    for given in node.all_input_nodes:
        owner = graph.owner(given)
        if owner is not None and owner[0]:
            return f"{owner[0]}.{operation(node)}"
    return node.name


def _is_norm(graph: Graph, node: fx.Node) -> bool:
    """Return whether the statistics are those of a norm's module, which training updates."""
    owners = [graph.owner(given) for given in node.all_input_nodes]
    return any(owner and isinstance(owner[1], nn.modules.batchnorm._NormBase) for owner in owners)


FUNCTIONS = GraphPass("modules for functions", _rewrite)
