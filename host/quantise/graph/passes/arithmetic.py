"""Rewrite arithmetic with constants to a factor and a summand for each channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.moved_operands import affine_of_root


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    name = operation(node)
    shape = graph.shape(node)
    if name == "square" or (name == "pow" and node.args[1] == 2):
        graph.replace(node, torch.mul, graph.source(node), graph.source(node))
        return True
    if name not in ("add", "sub", "rsub", "mul", "div", "neg") or len(shape) < 2:
        return False
    if name == "neg":
        return _affine(graph, node, graph.source(node), -1.0, 0.0)
    first, second = _operands(node)
    alpha = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if name in ("sub", "rsub") or alpha != 1:
        sign = -alpha if name != "add" else alpha  # type: ignore[operator]
        if name == "rsub":
            first, second = second, first
        return _signed_sum(graph, node, first, second, sign)
    value, constant, swapped = _value_and_constant(graph, first, second)
    if value is None:
        return False
    if name == "add":
        return _affine(graph, node, value, 1.0, constant)
    if name == "mul":
        return _affine(graph, node, value, constant, 0.0)
    return not swapped and _affine(graph, node, value, 1.0 / constant, 0.0)


def _operands(node: fx.Node) -> tuple[Any, Any]:
    given = [*node.args[:2]]
    given += [node.kwargs[name] for name in ("input", "other") if name in node.kwargs]
    return given[0], given[1]


def _value_and_constant(graph: Graph, first: Any, second: Any) -> tuple[fx.Node | None, Any, bool]:
    for value, other, swapped in ((first, second, False), (second, first, True)):
        constant = _constant(graph, other)
        if isinstance(value, fx.Node) and constant is not None and graph.constant(value) is None:
            return value, constant, swapped
    return None, None, False


def _constant(graph: Graph, given: Any) -> Any:
    if isinstance(given, bool):
        return None
    return given if isinstance(given, int | float) else graph.constant(given)


def _signed_sum(graph: Graph, node: fx.Node, first: Any, second: Any, sign: Any) -> bool:
    """Rewrite first + sign * second, of which one may be constant."""
    constant = _constant(graph, second)
    if constant is not None and isinstance(first, fx.Node):
        return _affine(graph, node, first, 1.0, constant * sign)
    if not isinstance(second, fx.Node):
        return False
    constant = _constant(graph, first)
    if constant is not None:
        return _affine(graph, node, second, sign, constant)
    if not graph.shape(first) == graph.shape(second) == graph.shape(node):
        return False
    scaled = _node(graph, node, second, float(sign), 0.0)
    if scaled is None:
        return False
    graph.replace(node, torch.add, first, scaled)
    return True


def _affine(graph: Graph, node: fx.Node, value: fx.Node, scale: Any, shift: Any) -> bool:
    if graph.shape(value) != graph.shape(node):
        return False
    new = _node(graph, node, value, scale, shift)
    if new is None:
        new = affine_of_root(graph, node, value, scale, shift)
    if new is None:
        return False
    graph.substitute(node, new)
    return True


def _node(graph: Graph, node: fx.Node, value: fx.Node, scale: Any, shift: Any) -> fx.Node | None:
    shape = graph.shape(value)
    factors, summands = _by_channel(scale, shape), _by_channel(shift, shape)
    if factors is None or summands is None:
        return None
    return graph.before(node, Affine(factors, summands, scale, shift), value, name=node.name)


def _by_channel(given: Any, shape: tuple[int, ...]) -> Tensor | None:
    """Return a constant as a number for each channel; None if it varies within a channel."""
    constant = torch.as_tensor(given, dtype=torch.float32).detach()
    if constant.numel() == 1:
        return constant.reshape(1).repeat(shape[1])
    sizes = (1,) * (len(shape) - constant.dim()) + tuple(constant.shape)
    if sizes != (1, shape[1], *[1] * (len(shape) - 2)):
        return None
    return constant.reshape(-1).clone()


ARITHMETIC = GraphPass("arithmetic with constants", _rewrite)
