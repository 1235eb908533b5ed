"""From a PyTorch network to a graph of operations: by torch.fx, else by torch.export."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.tracer import ShapedTracer
from tutelage.host.quantise.graph.values import VALUE, without_data


def capture(network: nn.Module, images: Sequence[Tensor]) -> Graph:
    """Return the graph of a network in evaluation mode; the network stays as it is.

    Parameters
    ----------
    images : an input for each of the network's

    Raises
    ------
    Exception
        Whatever the network's code raises, or fx where that branches on values.
    """
    try:
        return _by_tracing(network, images)
    except Exception as error:  # whatever the user's code raises on values without data
        try:
            return _by_export(network, images)
        except Exception:
            raise error from None  # the first names the user's line


def _by_tracing(network: nn.Module, images: Sequence[Tensor]) -> Graph:
    # fx adds constants to the network that it traces.
    root = copy.copy(network)
    for name in ("_parameters", "_buffers", "_modules"):
        root.__dict__[name] = dict(network.__dict__[name])
    return Graph(fx.GraphModule(root, ShapedTracer(images).trace(root)))


def _by_export(network: nn.Module, images: Sequence[Tensor]) -> Graph:
    exported = torch.export.export(network, tuple(images))
    module = exported.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph = Graph(module)
    inputs = iter(images)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.meta[VALUE] = without_data(next(inputs))
        elif node.op == "get_attr":
            node.meta[VALUE] = graph.constant(node)
        elif node.op != "output":
            graph.evaluate(node)
    module.graph.set_codegen(fx.graph.CodeGen())
    _use_tuple(graph.output)
    return graph


def _use_tuple(output: fx.Node) -> None:
    """Return one value as itself: torch.export has lists of outputs."""
    given: Any = output.args[0]
    if isinstance(given, list | tuple) and len(given) == 1:
        output.args = (given[0],)
