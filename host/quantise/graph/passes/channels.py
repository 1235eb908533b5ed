"""Fold selections of channels (chunks, shuffles, permutations) into weights, or make them layers.

A permutation folded into the weights of the layers that read it costs nothing. A selection that
cannot be folded becomes a slice, which the DPU can read directly, or a 1x1 convolution with weights
0 and 1, which is exact.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.copies import derived, layer_of_pixels, plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine, ChannelSelect, ChannelSlice
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.relu_first import is_pointwise

log = logging.getLogger(__name__)

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_NORM = nn.modules.batchnorm._BatchNorm


def _select(graph: Graph, node: Any) -> ChannelSelect | None:
    module = graph.module_of(node)
    return module if isinstance(module, ChannelSelect) else None


# -- selections of selections ---------------------------------------------------------------


def _merge(graph: Graph, node: fx.Node) -> bool:
    """Merge a selection of a selection into one."""
    second = _select(graph, node)
    if second is None or (first := _select(graph, graph.source(node))) is None:
        return False
    channels = [first.channels[c] if c >= 0 else -1 for c in second.channels]
    graph.replace(node, ChannelSelect(channels), graph.source(graph.source(node)))
    return True


def _join(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a concat of parts of one map to a selection, with factors and summands if any."""
    parts = _parts(node)
    if not parts or len(graph.shape(node)) not in (2, 4):
        return False
    found = [_piece(graph, part) for part in parts]
    root = found[0][0]
    if any(piece[0] is not root for piece in found) or len(set(parts)) == 1:
        return False
    if not any(graph.module_of(part) for part in parts):
        return False
    channels = [channel for piece in found for channel in piece[1]]
    scale, shift = (torch.cat([piece[i] for piece in found]) for i in (2, 3))  # type: ignore[misc]
    trained = [given for part in parts for given in getattr(graph.module_of(part), "trained", ())]
    picked = graph.before(node, ChannelSelect(channels), root, name=node.name)
    graph.replace(node, Affine(scale, shift, *trained), picked, name=node.name)
    return True


def _parts(node: fx.Node) -> list[Any]:
    if operation(node) != "cat" or not node.args or not isinstance(node.args[0], list | tuple):
        return []
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return list(node.args[0]) if axis in (1, -3) else []


def _piece(graph: Graph, part: fx.Node) -> tuple[fx.Node, tuple[int, ...], Tensor, Tensor]:
    count = graph.shape(part)[1]
    affine = graph.module_of(part)
    scale = torch.ones(count, device=graph.device)
    shift = torch.zeros_like(scale)
    if isinstance(affine, Affine):
        scale, shift, part = affine.scale, affine.shift, graph.source(part)
    select = _select(graph, part)
    if select is None:
        return part, tuple(range(count)), scale, shift
    return graph.source(part), select.channels, scale, shift


def _of_concat(graph: Graph, node: fx.Node) -> bool:
    """Move a selection before a concat, if it takes the parts of the concat one after the other."""
    select = _select(graph, node)
    if select is None or min(select.channels) < 0:
        return False
    concat = graph.source(node)
    parts = _parts(concat)
    if not parts:
        return False
    owner = [i for i, part in enumerate(parts) for _ in range(graph.shape(part)[1])]
    begin = [owner.index(i) for i in range(len(parts))]
    runs: list[tuple[int, list[int]]] = []
    for channel in select.channels:
        index = owner[channel]
        if not runs or runs[-1][0] != index:
            runs.append((index, []))
        runs[-1][1].append(channel - begin[index])
    if len({index for index, _ in runs}) != len(runs):
        return False
    whole = [channels == list(range(graph.shape(parts[i])[1])) for i, channels in runs]
    if not all(whole) and len(runs) > 1:
        return False
    new = [graph.before(node, ChannelSelect(channels), parts[i]) for i, channels in runs]
    graph.substitute(node, new[0] if len(new) == 1 else graph.before(node, torch.cat, new, 1))
    return True


# -- into the layer before ------------------------------------------------------------------


def _back(graph: Graph, node: fx.Node) -> bool:
    """Fold selections of a convolution's result into its weights, with one convolution for each."""
    select = _select(graph, node)
    if select is None:
        return False
    selected = graph.source(node)
    readers = list(selected.users)
    selects = [_select(graph, reader) for reader in readers]
    if any(s is None or min(s.channels) < 0 for s in selects):
        return False
    if sum(len(s.channels) for s in selects if s) > graph.shape(selected)[1]:
        return False
    chain = _chain(graph, selected)
    if chain is None:
        return False
    for reader, part in zip(readers, selects, strict=True):
        assert part is not None
        new = graph.source(chain[-1])
        for step in reversed(chain):
            module = _of_channels(graph.module_of(step), torch.tensor(part.channels))
            if len(readers) == 1:
                new = graph.replace(step, module, new)
            else:
                new = graph.before(step, module, new, name=graph.name_of(step))
        reader.replace_all_uses_with(new)
    return True


def _chain(graph: Graph, node: fx.Node) -> list[fx.Node] | None:
    """Return the nodes from a value back to the layer with weights that computes its channels."""
    chain = [node]
    while True:
        module = graph.module_of(chain[-1])
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            return chain
        passes = (
            isinstance(module, (*_POOLS, _NORM)) or is_pointwise(module) or _is_depthwise(module)
        )
        if not passes:
            return None
        chain.append(graph.source(chain[-1]))
        if not graph.has_one_reader(chain[-1]):
            return None


def _is_depthwise(module: nn.Module | None) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return module.groups == module.in_channels == module.out_channels > 1


@torch.no_grad()
def _of_channels(module: Any, channels: Tensor) -> nn.Module:
    """Return a layer that computes only some of the channels of a module."""
    new = plain_copy(module)
    if isinstance(module, nn.Conv2d | nn.Linear):
        new._parameters["weight"] = derived(module.weight[channels], module.weight)
        if module.bias is not None:
            new._parameters["bias"] = derived(module.bias[channels], module.bias)
        if isinstance(module, nn.Linear):
            new.out_features = len(channels)
        else:
            new.out_channels = len(channels)
        if _is_depthwise(module):
            new.in_channels = new.groups = len(channels)
    elif isinstance(module, _NORM):
        new.num_features = len(channels)
        for name, value in [*module._parameters.items(), *module._buffers.items()]:
            if value is not None and value.dim():
                kept = value[channels]
                if name in module._parameters:
                    kept = derived(kept, value)
                (new._parameters if name in module._parameters else new._buffers)[name] = kept
    return new


# -- into the layers after ------------------------------------------------------------------


def _forward(graph: Graph, node: fx.Node) -> bool:
    """Fold a selection into the weights of its readers, where possible for each of them."""
    select = _select(graph, node)
    if select is None:
        return False
    changed = False
    for reader in list(node.users):
        changed |= _into(graph, node, reader, select)
    return changed


def _into(graph: Graph, node: fx.Node, reader: fx.Node, select: ChannelSelect) -> bool:
    module, source = graph.module_of(reader), graph.source(node)
    whole = graph.shape(source)[1]
    if isinstance(module, nn.Linear) or type(module) is nn.Conv2d or _is_padded(module):
        if _is_depthwise(module):
            return _after(graph, node, reader, select)
        if not _is_cheaper(graph, node, reader, select):
            return False
        graph.replace(reader, _scattered(module, select, whole), source)
        return True
    if reader.target is torch.flatten:
        return _into_dense(graph, node, reader, select)
    if isinstance(module, (*_POOLS, _NORM)):
        return _after(graph, node, reader, select)
    return False


def _is_padded(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Conv2d) and hasattr(module, "pads")


def _is_cheaper(graph: Graph, node: fx.Node, reader: fx.Node, select: ChannelSelect) -> bool:
    """Return whether zeros in the weights cost fewer products than the selection as a layer."""
    whole, picked = graph.shape(graph.source(node))[1], len(select.channels)
    if (
        select.is_permutation()
        and picked == whole
        and getattr(graph.module_of(reader), "groups", 1) == 1
    ):
        return True
    pixels = torch.Size(graph.shape(node)[2:]).numel()
    as_layer = whole * picked * pixels
    module: Any = graph.module_of(reader)
    outputs = torch.Size(graph.shape(reader)[1:]).numel()
    kernel = torch.Size(module.weight.shape[2:]).numel()
    more = (whole - module.weight.shape[1]) * kernel * outputs
    return more <= as_layer


@torch.no_grad()
def _scattered(module: Any, select: ChannelSelect, whole: int) -> nn.Module:
    """Return a layer with weights for all channels, 0 for those that are not selected."""
    new = plain_copy(module)
    weight = module.weight
    if getattr(module, "groups", 1) > 1:
        weight = _dense(weight, module.groups)
        new.groups = 1
    kept = torch.tensor([c >= 0 for c in select.channels], device=weight.device)
    channels = torch.tensor([c for c in select.channels if c >= 0], device=weight.device)
    full = weight.new_zeros(weight.shape[0], whole, *weight.shape[2:])
    full.index_add_(1, channels, weight[:, kept])
    new._parameters["weight"] = derived(full, module.weight)
    name = "in_features" if isinstance(module, nn.Linear) else "in_channels"
    setattr(new, name, whole)
    return new


def _dense(weight: Tensor, groups: int) -> Tensor:
    """Return the weights of a convolution with groups as those of one without."""
    out, each = weight.shape[0] // groups, weight.shape[1]
    full = weight.new_zeros(weight.shape[0], each * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        full[rows, group * each : (group + 1) * each] = weight[rows]
    return full


def _after(graph: Graph, node: fx.Node, reader: fx.Node, select: ChannelSelect) -> bool:
    """Move a permutation after a layer that processes each channel separately."""
    module, source = graph.module_of(reader), graph.source(node)
    if not select.is_permutation() or len(select.channels) != graph.shape(source)[1]:
        return False
    places = torch.tensor(select.channels).argsort()
    moved = _of_channels(module, places)
    computed = graph.before(reader, moved, source, name=graph.name_of(reader))
    graph.replace(reader, ChannelSelect(select.channels), computed, name=graph.name_of(node))
    return True


def _into_dense(graph: Graph, node: fx.Node, flat: fx.Node, select: ChannelSelect) -> bool:
    """Fold a selection before a flattening into the columns of the dense layers after it."""
    whole, pixels = graph.shape(graph.source(node))[1], torch.Size(graph.shape(node)[2:]).numel()
    readers = list(flat.users)
    if not all(isinstance(graph.module_of(reader), nn.Linear) for reader in readers):
        return False
    columns = [c * pixels + p if c >= 0 else -1 for c in select.channels for p in range(pixels)]
    all_columns = ChannelSelect(columns)
    new = graph.before(flat, torch.flatten, graph.source(node), 1)
    for reader in readers:
        module = graph.module_of(reader)
        graph.replace(reader, _scattered(module, all_columns, whole * pixels), new)
    return True


# -- the rest ------------------------------------------------------------------------------


def _as_layer(graph: Graph, node: fx.Node) -> bool:
    select = _select(graph, node)
    if select is None:
        return False
    first, last = select.channels[0], select.channels[-1] + 1
    rank = len(graph.shape(node))
    if rank == 4 and first >= 0 and select.channels == tuple(range(first, last)):
        graph.replace(node, ChannelSlice(first, last))
        return True
    whole = graph.shape(graph.source(node))[1]
    weight = torch.zeros(len(select.channels), whole)
    for row, channel in enumerate(select.channels):
        if channel >= 0:
            weight[row, channel] = 1
    log.warning(
        "%s: this selection of channels cannot be folded into weights; it becomes a 1x1 "
        "convolution, which costs time",
        node.name,
    )
    graph.replace(node, layer_of_pixels(weight, None, 1, rank == 4))
    return True


MERGE_SELECTIONS = GraphPass("merge selections", _merge)
JOIN_SELECTIONS = GraphPass("concats of one map's parts", _join)
SELECTIONS_OF_CONCATS = GraphPass("selections of concats", _of_concat)
SELECTIONS_BACK = GraphPass("selections into the layer before", _back)
SELECTIONS_FORWARD = GraphPass("selections into the layers after", _forward)
SELECTIONS_AS_LAYERS = GraphPass("selections as layers", _as_layer)
