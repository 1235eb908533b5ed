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
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp

from tutelage.core.errors import first_line
from tutelage.host.quantise.graph.capture import capture
from tutelage.host.quantise.graph.graph import BATCH, Graph
from tutelage.host.quantise.graph.normalise import normalise
from tutelage.host.quantise.graph.passes.replacements import (
    check_replacements,
    report_replacements,
)
from tutelage.host.quantise.graph.tracer import NOT_THE_USERS
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.walker import InputShape, UnsupportedOp, Walker, input_shapes

log = logging.getLogger(__name__)

_LARGEST_ERROR = 1e-3
"""Of the normalised network in float32, relative to the largest output."""


class Traced(dict[str, Layer]):
    """Layers by name, in an order they can run in.

    Attributes
    ----------
    activation : what the network computes behind its last layer, "softmax" or "sigmoid", which the
        CPU does; "" where the network returns what its last layer computes
    """

    activation: str = ""


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
    traced.activation = graph.activation
    return traced


def normalised_graph(
    network: nn.Module,
    input_shape: InputShape,
    replace: Mapping[str, str] | None = None,
) -> Graph:
    """Return the graph of few forms that computes what `network` does; raises as `trace`.

    Its nodes have shapes (`tensor_meta`, as torch.fx's ShapeProp writes them).
    """
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        images = _images(network, input_shape)
        computed, graph = _captured(network, images)
        graph.replacements = dict(replace or {})
        normalise(graph)
        with torch.no_grad():
            found = ShapeProp(graph.module).propagate(*(image.clone() for image in images))
        if not graph.replaced:
            _check(network, found, computed, graph.stripped)
        report_replacements(graph.replaced)
        for note in graph.notes:
            log.info("%s", note)
        return graph
    finally:
        for part, mode in training.items():
            part.training = mode


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
        return computed, capture(network, images)
    except Exception as error:  # whatever the network's own code raises
        raise UnsupportedOp(
            f"{type(network).__name__} cannot be traced ({first_line(error)}){_place(error)}; "
            "its forward must not branch on values, only on constants and sizes"
        ) from error


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
        equal = mine.shape == theirs.shape and torch.allclose(
            mine, theirs, 0, _LARGEST_ERROR * largest, equal_nan=True
        )
        if not equal:
            raise UnsupportedOp(
                f"the trace of {type(network).__name__} computes something else than the network: "
                "it overwrites (+=) a part of a value that is read again, or draws random numbers"
            )


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    parts = given.values() if isinstance(given, dict) else given
    return [tensor for part in parts for tensor in _tensors(part)]


def _place(error: BaseException) -> str:
    """The user's line that an error comes from, as Python shows it."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(NOT_THE_USERS)]
    if not theirs or theirs[-1].filename.startswith("<"):
        return ""
    return f' (File "{theirs[-1].filename}", line {theirs[-1].lineno})'
