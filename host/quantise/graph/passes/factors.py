"""Fold factors and summands of channels into the weights before or after them."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import derived, layer_of_pixels, plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.operations import is_movement
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

log = logging.getLogger(__name__)

_WEIGHTED = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
_NORM = nn.modules.batchnorm._BatchNorm
_MONOTONE = (nn.ReLU, nn.LeakyReLU, nn.PReLU)
_AVERAGES = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def _merge(graph: Graph, node: fx.Node) -> bool:
    """Merge two consecutive ones."""
    second = graph.module_of(node)
    if not isinstance(second, Affine):
        return False
    first = graph.module_of(graph.source(node))
    if not isinstance(first, Affine):
        return False
    scale, shift = first.scale * second.scale, first.shift * second.scale + second.shift
    merged = Affine(scale, shift, *first.trained, *second.trained)
    graph.replace(node, merged, graph.source(graph.source(node)))
    return True


def _fold_back(graph: Graph, node: fx.Node) -> bool:
    """Fold into the layer before, if nothing else reads the values between."""
    affine = graph.module_of(node)
    if not isinstance(affine, Affine):
        return False
    target = graph.source(node)
    while graph.has_one_reader(target) and _commutes(graph, target, affine):
        target = graph.source(target)
    module = graph.module_of(target)
    if not isinstance(module, (*_WEIGHTED, _NORM)) or not graph.has_one_reader(target):
        return False
    if isinstance(module, nn.Linear) and len(graph.shape(target)) != 2:
        return False
    channels = graph.shape(target)[1]
    if channels != len(affine.scale):  # flattened, with one factor for all
        values = (value[:1].repeat(channels) for value in (affine.scale, affine.shift))
        affine = Affine(*values, *affine.trained)
    scaled = scaled_outputs(module, affine)
    if scaled is None:
        return False
    graph.replace(target, scaled, *target.args)
    graph.substitute(node, graph.source(node))
    return True


def _commutes(graph: Graph, node: fx.Node, affine: Affine) -> bool:
    """Return whether a factor and a summand can be moved before a node."""
    module = graph.module_of(node)
    no_shift, positive = bool((affine.shift == 0).all()), bool((affine.scale > 0).all())
    if isinstance(module, _MONOTONE):
        return positive and no_shift
    if isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
        return positive
    if isinstance(module, _AVERAGES):
        return no_shift or isinstance(module, nn.AdaptiveAvgPool2d) or not _pads(module)
    if isinstance(module, nn.ZeroPad2d):
        return no_shift
    if not is_movement(node) or graph.shape(node)[1:2] == ():
        return False
    same = bool((affine.scale == affine.scale[0]).all() and (affine.shift == affine.shift[0]).all())
    return same or _is_vector_of(graph.shape(node), graph.shape(graph.source(node)))


def _pads(pool: Any) -> bool:
    return pool.padding not in (0, (0, 0)) or pool.ceil_mode


def _is_vector_of(vector: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Return whether a value is the channels of another, such as of a map of one pixel."""
    squeezed = [tuple(size for size in shape[2:] if size != 1) for shape in (vector, given)]
    return squeezed == [(), ()] and vector[:2] == given[:2]


@torch.no_grad()
def scaled_outputs(module: Any, affine: Affine) -> nn.Module | None:
    """Return a copy of a layer or norm with scaled and shifted results; None if not possible."""
    new, given = plain_copy(module), (module.weight, module.bias, *affine.trained)
    scale, shift = affine.scale, affine.shift
    if isinstance(module, _NORM):
        if module.running_mean is None:
            return None
        weight = torch.ones_like(scale) if module.weight is None else module.weight
        bias = torch.zeros_like(shift) if module.bias is None else module.bias
        new.affine = True
        new._parameters["weight"] = derived(weight * scale, *given)
        new._parameters["bias"] = derived(bias * scale + shift, *given)
        return new
    weight, bias = module.weight, module.bias
    assert isinstance(weight, torch.Tensor)
    if isinstance(module, nn.ConvTranspose2d):
        if module.groups != 1:
            return None
        new._parameters["weight"] = derived(weight * scale.view(1, -1, 1, 1), *given)
    else:
        sizes = (-1, *[1] * (weight.dim() - 1))
        new._parameters["weight"] = derived(weight * scale.view(sizes), *given)
    if bias is not None or (shift != 0).any():
        summand = shift if bias is None else bias * scale + shift
        new._parameters["bias"] = derived(summand, *given)
    return new


def _fold_forward(graph: Graph, node: fx.Node) -> bool:
    """Fold into the layers that read it, unless their padding would have to be shifted too."""
    affine = graph.module_of(node)
    if not isinstance(affine, Affine) or not node.users:
        return False
    readers = list(node.users)
    if not all(_takes(graph, reader, affine) for reader in readers):
        return False
    for reader in readers:
        graph.replace(reader, _scaled_inputs(graph.module_of(reader), affine), *reader.args)
    graph.substitute(node, graph.source(node))
    return True


def _takes(graph: Graph, reader: fx.Node, affine: Affine) -> bool:
    module = graph.module_of(reader)
    if isinstance(module, nn.Linear):
        return module.in_features == len(affine.scale)
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros":
        return False
    pads = getattr(module, "pads", None) or module.padding
    return not (affine.shift != 0).any() or not any(pads)


@torch.no_grad()
def _scaled_inputs(module: Any, affine: Affine) -> nn.Module:
    new, given = plain_copy(module), (module.weight, module.bias, *affine.trained)
    if isinstance(module, nn.Linear):
        scale, shift = affine.scale.view(1, -1), affine.shift.view(1, -1)
    else:
        channels = module.weight.shape[1]
        groups = [v.view(module.groups, channels) for v in (affine.scale, affine.shift)]
        each = module.out_channels // module.groups
        scale, shift = (v.repeat_interleave(each, 0)[:, :, None, None] for v in groups)
    new._parameters["weight"] = derived(module.weight * scale, *given)
    if (affine.shift != 0).any():
        summand = (module.weight * shift).flatten(1).sum(1)
        bias = 0 if module.bias is None else module.bias
        new._parameters["bias"] = derived(bias + summand, *given)
    return new


def _as_layer(graph: Graph, node: fx.Node) -> bool:
    """Make those that cannot be folded a 1x1 depthwise convolution."""
    affine = graph.module_of(node)
    if not isinstance(affine, Affine):
        return False
    channels, rank = len(affine.scale), len(graph.shape(node))
    if rank not in (2, 4):
        return False
    bias = affine.shift if bool((affine.shift != 0).any()) else None
    trained = any(part.requires_grad for part in affine.trained)
    if rank == 4:
        layer = layer_of_pixels(affine.scale[:, None], bias, channels, True, trained)
    else:
        layer = layer_of_pixels(torch.diag(affine.scale), bias, 1, False, trained)
    log.warning(
        "%s: this factor or summand of channels cannot be folded into weights; it becomes a 1x1 "
        "depthwise convolution, which costs time",
        node.name,
    )
    graph.replace(node, layer)
    return True


MERGE_FACTORS = GraphPass("merge factors", _merge)
FOLD_BACK = GraphPass("factors into the layer before", _fold_back)
FOLD_FORWARD = GraphPass("factors into the layers after", _fold_forward)
FACTORS_AS_LAYERS = GraphPass("factors as convolutions", _as_layer)
