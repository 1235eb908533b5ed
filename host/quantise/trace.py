"""Conversion of any nn.Module to layers of the DPU, with torch.fx.

The network is captured as a graph (host/quantise/graph/capture.py), rewritten by passes to a small
set of operations (host/quantise/graph/normalise.py), and converted to layers. A batch norm joins
the convolution before it, or becomes a 1x1 depthwise convolution if there is none; a ReLU joins the
convolution or addition before it; a linear layer becomes a convolution over the whole map. Each
file of host/quantise/layers registers the operations that it converts. For operations that the DPU
does not support, an UnsupportedOp names the place and a remedy.
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
from tutelage.host.quantise.graph.normalise import CANONICAL, FOR_DPU, REPLACING, normalise
from tutelage.host.quantise.graph.passes.replacements import (
    check_replacements,
    report_replacements,
)
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import InputShape, UnsupportedOp, Walker, input_shapes

log = logging.getLogger(__name__)

MISFIT_REMEDY = "give the channels, height and width that it was made for"
"""Remedy for inputs whose shape does not fit the network."""

_LARGEST_ERROR = 1e-3
"""Largest error of the normalised network in float32, relative to the largest output."""


class Traced(dict[str, Layer]):
    """Name -> layer, in execution order.

    Attributes
    ----------
    activations : for each output the function at its end, which the CPU computes: "softmax" or
        "sigmoid"; "" if there is none
    replaced : the replacements made, such as "silu=hardswish"
    """

    activations: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


def trace(
    network: nn.Module,
    input_shape: InputShape,
    replace: Mapping[str, str] | None = None,
) -> Traced:
    """Return the layers of `network` for images [N, *input_shape], in execution order.

    Weights and norms are copied; the network is not changed.

    Parameters
    ----------
    network : trained in float
    input_shape : (C, H, W); one for each input if there are several
    replace : activations to replace by ones that the DPU has, such as {"silu": "hardswish"}; the
        replacements made are logged

    Raises
    ------
    UnsupportedOp : the network contains an operation that the DPU does not support, or control
        flow that torch.fx cannot trace
    ValueError : a replacement is not known
    """
    check_replacements(replace or {})
    graph = normalised_graph(network, input_shape, replace)
    traced = Traced(Walker(graph.module).walk())
    for layer in traced.values():
        layer.float()  # the network may be in double or half precision
    places = range(sum(len(layer.output_places) for layer in traced.values()))
    traced.activations = tuple(graph.activations.get(place, "") for place in places)
    traced.replaced = tuple(dict.fromkeys(f"{old}={new}" for _, old, new in graph.replaced))
    return traced


def normalised_graph(
    network: nn.Module,
    input_shape: InputShape,
    replace: Mapping[str, str] | None = None,
) -> Graph:
    """Return a graph with a small set of operations that computes the same as `network`.

    Its nodes have the shapes of their values (`tensor_meta`, as written by torch.fx's ShapeProp).

    Parameters
    ----------
    network, input_shape, replace : see `trace`

    Raises
    ------
    UnsupportedOp, ValueError : see `trace`
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise UnsupportedOp(
            "the network is a TorchScript module, which cannot be traced; pass the Python module "
            "it was made from"
        )
    _check_values(network)
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        images = _images(network, input_shape)
        computed, graph = _captured(network, images)
        normalise(graph, CANONICAL)
        if replace:
            _check(network, _run(graph, images), computed, graph.stripped)
            graph.replacements = dict(replace)
            normalise(graph, REPLACING)
            computed = _run(graph, images)
        normalise(graph, FOR_DPU)
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
    """Raise UnsupportedOp if a parameter or statistic has no values, or has a NaN."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if is_lazy(tensor):
            continue  # its shape is set by the first images
        if tensor.is_meta:
            raise UnsupportedOp(
                f"{name} has a shape but no values (device meta); load weights into the network "
                "first (load_state_dict(..., assign=True))"
            )
        if bool(torch.isnan(tensor).any()):
            raise UnsupportedOp(f"{name} contains NaN; train the network again")


def _images(network: nn.Module, input_shape: InputShape) -> list[Tensor]:
    parameter = next(network.parameters(), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(BATCH, *shape, generator=generator).to(parameter)
        for shape in input_shapes(input_shape)
    ]


def _captured(network: nn.Module, images: list[Tensor]) -> tuple[Any, Graph]:
    """Return the result of a network, and its graph.

    Raises
    ------
    UnsupportedOp
        The network fails on the images, or cannot be traced.
    """
    try:
        with torch.no_grad():
            computed = network(*(image.clone() for image in images))
    except Exception as error:  # whatever the network's own code raises
        raise _unable(network, images, error) from error
    try:
        return computed, capture(network, images)
    except Exception as error:  # whatever it raises on symbolic values
        file, line = users_line(error)
        place = f' (File "{file}", line {line})' if file else ""
        raise UnsupportedOp(
            f"{type(network).__name__} cannot be traced ({first_line(error)}){place}; "
            "its forward must not branch on values, only on constants and shapes"
        ) from error


def _unable(network: nn.Module, images: list[Tensor], error: Exception) -> UnsupportedOp:
    """Return the error for a network that fails when it is called."""
    found = failure(network, images, error)
    sizes = " and ".join("x".join(map(str, image.shape[1:])) for image in images)
    what = f"{type(network).__name__} fails on an input of {sizes}: {found.text}"
    remedy = MISFIT_REMEDY if found.is_misfit else ""
    text = what + found.place + (f"; {remedy}" if remedy else "")
    return UnsupportedOp(text, what, found.at, found.file, found.line, remedy)


@torch.no_grad()
def _run(graph: Graph, images: list[Tensor]) -> Any:
    """Return the results of a graph, and store the shapes of its nodes."""
    return ShapeProp(graph.module).propagate(*(image.clone() for image in images))


def _check(
    network: nn.Module, found: Any, computed: Any, stripped: Mapping[int, nn.Module]
) -> None:
    """Compare the graph's results with those of the network.

    Parameters
    ----------
    found, computed : the results of the graph and of the network
    stripped : position of an output -> the function that was removed from its end

    Raises
    ------
    UnsupportedOp
        They differ, or are not finite.
    """
    pairs = zip(_tensors(found), _tensors(computed), strict=True)
    for place, (mine, theirs) in enumerate(pairs):
        if place in stripped:
            mine = stripped[place](mine)
        largest = float(theirs.abs().max()) if theirs.numel() else 0.0
        if not math.isfinite(largest):
            raise UnsupportedOp(
                f"{type(network).__name__} computes values that are not finite; its weights may be "
                "too large, or the variance of a norm negative"
            )
        equal = mine.shape == theirs.shape and torch.allclose(
            mine, theirs, 0, _LARGEST_ERROR * largest, equal_nan=True
        )
        if not equal:
            raise UnsupportedOp(
                f"the traced {type(network).__name__} computes other values than the network; it "
                "must not overwrite (+=) part of a value that is read again, draw random numbers, "
                "or have hooks"
            )


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if given is None:
        return []
    parts = given.values() if isinstance(given, dict) else given
    if not isinstance(given, dict | list | tuple):
        raise UnsupportedOp(
            f"the network returns a {type(given).__name__}; return one tensor, or a tuple of them"
        )
    return [tensor for part in parts for tensor in _tensors(part)]
