"""Any nn.Module -> the DPU's layers, by torch.fx.

The network is captured as a graph (host/quantise/graph/capture.py) and rewritten by passes until
it has few forms (host/quantise/graph/normalise.py), which then become layers: batch norms join the
convolution before them (one with none before it becomes a 1x1 depthwise convolution), ReLUs join
the convolution or addition before them, linear layers become convolutions over the whole map.
What the DPU cannot take is an UnsupportedOp that says where it is and what to do. What becomes
which layer is written with the layers (host/quantise/layers).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.parameter import is_lazy

from tutelage.core.errors import first_line
from tutelage.host.quantise.graph.capture import capture
from tutelage.host.quantise.graph.failure import failure, users_line
from tutelage.host.quantise.graph.graph import BATCH, Graph
from tutelage.host.quantise.graph.normalise import EXCHANGE, PLACES, SPELLING, normalise
from tutelage.host.quantise.graph.passes.replacements import (
    check_replacements,
    report_replacements,
)
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import InputShape, UnsupportedOp, Walker, input_shapes

log = logging.getLogger(__name__)

MISFIT_REMEDY = "give the channels, height and width that it was made for"
"""Where the shape of the inputs is not the network's."""

_LARGEST_ERROR = 1e-3
"""Of the normalised network in float32, relative to the largest output."""


class Traced(dict[str, Layer]):
    """Layers by name, in an order they can run in.

    Attributes
    ----------
    activations : what the network computes behind its last layers, "softmax" or "sigmoid", which
        the CPU does, for each output; "" where the network returns what a layer computes
    replaced : what was exchanged, "silu=hardswish" and its like
    """

    activations: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def trace(
    network: nn.Module,
    input_shape: InputShape,
    replace: Mapping[str, str] | None = None,
) -> Traced:
    """Return the layers of `network` for images [N, *input_shape], in an order they can run in.

    Weights and norms are copies; the network stays as it is.

    Parameters
    ----------
    input_shape : (C, H, W); of a network with several inputs one for each
    replace : activations to exchange for what the DPU has, such as {"silu": "hardswish"}; what
        is exchanged is logged

    Raises
    ------
    UnsupportedOp : an operation the DPU cannot take, or control flow that fx cannot follow
    ValueError : a replacement that is not known
    """
    check_replacements(replace or {})
    graph = normalised_graph(network, input_shape, replace)
    traced = Traced(Walker(graph.module).walk())
    for layer in traced.values():
        layer.float()  # of a network in double or half precision
    places = range(sum(len(layer.output_places) for layer in traced.values()))
    traced.activations = tuple(graph.activations.get(place, "") for place in places)
    traced.replaced = tuple(dict.fromkeys(f"{old}={new}" for _, old, new in graph.replaced))
    return traced


def normalised_graph(
    network: nn.Module,
    input_shape: InputShape,
    replace: Mapping[str, str] | None = None,
) -> Graph:
    """Return the graph of few forms that computes what `network` does; raises as `trace`.

    Its nodes have shapes (`tensor_meta`, as torch.fx's ShapeProp writes them).
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise UnsupportedOp(
            "the network is a TorchScript module, which cannot be traced: give the Python module "
            "that it was made of"
        )
    _check_values(network)
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        images = _images(network, input_shape)
        computed, graph = _captured(network, images)
        normalise(graph, SPELLING)
        if replace:
            _check(network, _run(graph, images), computed, graph.stripped)
            graph.replacements = dict(replace)
            normalise(graph, EXCHANGE)
            computed = _run(graph, images)
        normalise(graph, PLACES)
        stripped = {} if replace else graph.stripped
        _check(network, _run(graph, images), computed, stripped)
        report_replacements(graph.replaced)
        for note in graph.notes:
            log.info("%s", note)
        return graph
    finally:
        for part, mode in training.items():
            part.training = mode


def _check_values(network: nn.Module) -> None:
    """Refuse parameters and statistics that are no numbers.

    Raises
    ------
    UnsupportedOp
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            continue  # the first images give it a size
        if tensor.is_meta:
            raise UnsupportedOp(
                f"{name} has no values, only a shape (device meta): load weights into the network "
                "first (load_state_dict(..., assign=True))"
            )
        if bool(torch.isnan(tensor).any()):
            raise UnsupportedOp(f"{name} has values that are not numbers (NaN): train it again")


def _images(network: nn.Module, input_shape: InputShape) -> list[Tensor]:
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(BATCH, *shape, generator=generator).to(parameter)
        for shape in input_shapes(input_shape)
    ]


def _captured(network: nn.Module, images: list[Tensor]) -> tuple[Any, Graph]:
    """What a network returns, and its graph.

    Raises
    ------
    UnsupportedOp
    """
    try:
        with torch.no_grad():
            computed = network(*(image.clone() for image in images))
    except Exception as error:  # whatever the network's own code raises
        raise _unable(network, images, error) from error
    try:
        return computed, capture(network, images)
    except Exception as error:  # whatever it raises on values without data
        file, line = users_line(error)
        place = f' (File "{file}", line {line})' if file else ""
        raise UnsupportedOp(
            f"{type(network).__name__} cannot be traced ({first_line(error)}){place}; "
            "its forward must not branch on values, only on constants and sizes"
        ) from error


def _unable(network: nn.Module, images: list[Tensor], error: Exception) -> UnsupportedOp:
    """Return the refusal of a network that fails when it is called."""
    found = failure(network, images, error)
    sizes = " and ".join("x".join(map(str, image.shape[1:])) for image in images)
    what = f"{type(network).__name__} fails on an input of {sizes}: {found.text}"
    remedy = MISFIT_REMEDY if found.is_misfit else ""
    text = what + found.place + (f"; {remedy}" if remedy else "")
    return UnsupportedOp(text, what, found.at, found.file, found.line, remedy)


@torch.no_grad()
def _run(graph: Graph, images: list[Tensor]) -> Any:
    """The results of a graph, whose nodes get their shapes."""
    return ShapeProp(graph.module).propagate(*(image.clone() for image in images))


def _check(
    network: nn.Module, found: Any, computed: Any, stripped: Mapping[int, nn.Module]
) -> None:
    """Compare the graph's results with the network's own.

    Parameters
    ----------
    stripped : what the CPU computes from an output, by its place

    Raises
    ------
    UnsupportedOp
    """
    pairs = zip(_tensors(found), _tensors(computed), strict=True)
    for place, (mine, theirs) in enumerate(pairs):
        if place in stripped:
            mine = stripped[place](mine)
        largest = float(theirs.abs().max()) if theirs.numel() else 0.0
        if not math.isfinite(largest):
            raise UnsupportedOp(
                f"{type(network).__name__} computes values that are not finite: its weights are "
                "too large, or the variance of a norm is negative"
            )
        equal = mine.shape == theirs.shape and torch.allclose(
            mine, theirs, 0, _LARGEST_ERROR * largest, equal_nan=True
        )
        if not equal:
            raise UnsupportedOp(
                f"the trace of {type(network).__name__} computes something else than the network: "
                "it overwrites (+=) a part of a value that is read again, draws random numbers, or "
                "has a hook of its own"
            )


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if given is None:
        return []
    parts = given.values() if isinstance(given, dict) else given
    if not isinstance(given, dict | list | tuple):
        raise UnsupportedOp(
            f"the network returns a {type(given).__name__}: return one tensor, or a tuple of them"
        )
    return [tensor for part in parts for tensor in _tensors(part)]
