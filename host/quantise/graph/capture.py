"""Capture of a PyTorch network as a graph of operations, by torch.fx or else by torch.export."""

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
    """Return the graph of a network; the network itself is not changed.

    Parameters
    ----------
    network : in evaluation mode
    images : a tensor for each input of the network

    Raises
    ------
    Exception
        Any exception of the network's code, or of torch.fx if the code branches on values.
    """
    try:
        return by_tracing(network, images)
    except Exception as error:  # whatever the user's code raises on symbolic values
        try:
            return by_export(network, images)
        except Exception:
            raise error from None  # the first error has the line of the user's code


def by_tracing(network: nn.Module, images: Sequence[Tensor]) -> Graph:
    """Return the graph recorded by torch.fx."""
    # A shallow copy, since fx adds constants to the network that it traces.
    root = copy.copy(network)
    for name in ("_parameters", "_buffers", "_modules"):
        root.__dict__[name] = dict(network.__dict__[name])
    return Graph(fx.GraphModule(root, ShapedTracer(images).trace(root)), network)


def by_export(network: nn.Module, images: Sequence[Tensor]) -> Graph:
    """Return the graph recorded by torch.export, without decomposing its operations."""
    exported = torch.export.export(network, tuple(images), strict=False)
    module = exported.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    graph = Graph(module, network)
    inputs = iter(images)
    for node in graph.nodes:
        if node.op == "placeholder":
            node.meta[VALUE] = without_data(next(inputs))
        elif node.op not in ("get_attr", "output"):
            graph.evaluate(node)
    module.graph.set_codegen(fx.graph.CodeGen())
    _use_tuple(graph.output)
    return graph


def _use_tuple(output: fx.Node) -> None:
    """Replace a list of one output, as torch.export returns it, by the output itself."""
    given: Any = output.args[0]
    if isinstance(given, list | tuple) and len(given) == 1:
        output.args = (given[0],)
