"""Rewrite views, permutations, slices and chunks to selections of channels and similar forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.copies import derived, frozen, plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import ChannelSelect
from tutelage.host.quantise.graph.moved import Moved, is_moving, moved
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_MAX_KERNEL = 16
"""Largest side of the kernel of a convolution that crops a map."""


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    readers = [user for user in node.users if not is_moving(graph, user)]
    if not is_moving(graph, node) or not readers or _is_standard(graph, node):
        return False
    if not graph.shape(node) or (found := moved(graph, node)) is None:
        return False
    new = _standard_form(graph, node, found)
    if new is None:
        return _into_dense(graph, node, found, readers)
    # Readers that move it further start from the same map anyway.
    for reader in readers:
        reader.replace_input_with(node, new)
    return True


def _is_standard(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if isinstance(module, nn.Unflatten):
        return len(graph.shape(graph.source(node))) == 2 and graph.shape(node)[2:] == (1, 1)
    if node.target is not torch.flatten or is_moving(graph, graph.source(node)):
        return False
    return node.args[1:] == (1,) and len(graph.shape(graph.source(node))) == 4


def _standard_form(graph: Graph, node: fx.Node, found: Moved) -> fx.Node | None:
    shape = graph.shape(node)
    if len(shape) == 4:
        pixels = found.positions.view(shape[1], -1)
    elif len(shape) == 2:
        pixels = found.positions.view(-1, found.pixels if _whole(shape, found) else 1)
    else:
        return None
    channels, within = pixels[:, 0] // found.pixels, pixels % found.pixels
    if not torch.equal(pixels // found.pixels, channels[:, None].expand_as(pixels)):
        return None
    if not torch.equal(within, within[:1].expand_as(within)):
        return _blocks(graph, node, found, channels, within) if len(shape) == 4 else None
    size = shape[2:] if len(shape) == 4 else (found.size[1:] if _whole(shape, found) else (1, 1))
    new = _picked_pixels(graph, node, found, within[0].view(tuple(size)))
    if new is None:
        return None
    if not torch.equal(channels, torch.arange(found.size[0])):
        new = graph.before(node, ChannelSelect(channels.tolist()), new, name=node.name)
    return _with_rank(graph, node, new, len(shape))


def _whole(shape: tuple[int, ...], found: Moved) -> bool:
    """Return whether a vector can consist of whole channels."""
    return shape[1] % found.pixels == 0 and shape[1] >= found.pixels


def _with_rank(graph: Graph, node: fx.Node, new: fx.Node, rank: int) -> fx.Node:
    have = len(graph.shape(new))
    if rank == 2 and have == 4:
        return graph.before(node, torch.flatten, new, 1)
    if rank == 4 and have == 2:
        channels = graph.shape(new)[1]
        return graph.before(node, nn.Unflatten(1, (channels, 1, 1)), new, name=node.name)
    return new


def _picked_pixels(graph: Graph, node: fx.Node, found: Moved, within: Tensor) -> fx.Node | None:
    """Return the pixels of the root at positions [H', W'], by a pool or convolution if needed."""
    (_, height, width), root = found.size, found.root
    rows, columns = within[:, 0] // width, within[0] % width
    if not torch.equal(within, rows[:, None] * width + columns[None, :]):
        return None
    axes = [_steps(rows, height), _steps(columns, width)]
    if None in axes:
        return _repeated(graph, node, root, rows, columns)
    (top, down, low), (left, right, wide) = axes  # type: ignore[misc]
    if (top, left) == (0, 0) and (len(rows), len(columns)) == (height, width):
        return root
    if len(graph.shape(root)) != 4:
        return None
    if (top, left) == (0, 0) and low < down and wide < right:
        return graph.before(node, nn.MaxPool2d(1, (down, right)), root, name=node.name)
    kernel = low + 1, wide + 1
    if max(kernel) > _MAX_KERNEL:
        return None
    crop = nn.Conv2d(
        found.size[0], found.size[0], kernel, (down, right), groups=found.size[0], bias=False
    )
    weight = torch.zeros_like(crop.weight)
    weight[:, :, top, left] = 1
    crop.weight = frozen(weight)
    return graph.before(node, crop, root, name=node.name)


def _steps(picked: Tensor, size: int) -> tuple[int, int, int] | None:
    """Return the first position, the step, and the pixels left over at the end; None: no step."""
    first = int(picked[0])
    step = int(picked[1] - picked[0]) if len(picked) > 1 else size
    if step < 1 or not torch.equal(picked, first + step * torch.arange(len(picked))):
        return None
    return first, step, size - 1 - (len(picked) - 1) * step


def _blocks(
    graph: Graph, node: fx.Node, found: Moved, channels: Tensor, within: Tensor
) -> fx.Node | None:
    """Return the pixels of blocks as channels in any order, by a convolution over the blocks."""
    _, height, width = found.size
    within = within.view(len(channels), *graph.shape(node)[2:])
    down, right = height // within.shape[1], width // within.shape[2]
    rows = torch.arange(within.shape[1])[:, None] * down
    columns = torch.arange(within.shape[2])[None] * right
    offsets = within - (rows * width + columns)
    first = offsets[:, 0, 0]
    top, left = first // width, first % width
    alike = torch.equal(offsets, first[:, None, None].expand_as(offsets))
    if not alike or int(first.min()) < 0 or int(top.max()) >= down or int(left.max()) >= right:
        return None
    if max(down, right) > _MAX_KERNEL or len(graph.shape(found.root)) != 4:
        return None
    conv = nn.Conv2d(found.size[0], len(channels), (down, right), (down, right), bias=False)
    weight = torch.zeros_like(conv.weight)
    weight[torch.arange(len(channels)), channels, top, left] = 1
    conv.weight = frozen(weight)
    return graph.before(node, conv, found.root, name=node.name)


def _repeated(
    graph: Graph, node: fx.Node, root: fx.Node, rows: Tensor, columns: Tensor
) -> fx.Node | None:
    """Return a map of one pixel expanded only for sums and products, which expand it themselves."""
    if rows.any() or columns.any():
        return None
    if not all(operation(user) in ("mul", "add") for user in node.users):
        return None
    return root


def _into_dense(graph: Graph, node: fx.Node, found: Moved, readers: list[fx.Node]) -> bool:
    """Fold any order of values into the columns of dense layers, if nothing else reads them."""
    if len(graph.shape(node)) != 2 or not all(_is_dense(graph, user) for user in readers):
        return False
    source = found.root
    if len(graph.shape(source)) == 4:
        source = graph.before(node, torch.flatten, source, 1)
    for reader in readers:
        module: Any = graph.module_of(reader)
        new = plain_copy(module)
        whole = found.size[0] * found.pixels
        weight = torch.zeros(module.out_features, whole, dtype=module.weight.dtype)
        weight = weight.to(module.weight.device)
        columns = found.positions.to(weight.device)
        weight.index_add_(1, columns, module.weight.detach())
        new.in_features = whole
        new._parameters["weight"] = derived(weight, module.weight)
        graph.replace(reader, new, source)
    return True


def _is_dense(graph: Graph, node: fx.Node) -> bool:
    return isinstance(graph.module_of(node), nn.Linear)


def _dense_of_pixels(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a dense layer over the channels, as the last axis, to a 1x1 convolution."""
    dense, source = graph.module_of(node), graph.source(node) if node.all_input_nodes else None
    if not isinstance(dense, nn.Linear) or source is None or not is_moving(graph, source):
        return False
    shape = graph.shape(source)
    if len(shape) < 3 or (found := moved(graph, source)) is None:
        return False
    channels = found.size[0]
    order = torch.arange(found.pixels)[:, None] + torch.arange(channels)[None] * found.pixels
    if len(graph.shape(found.root)) != 4 or shape[-1] != channels:
        return False
    if found.positions.numel() != order.numel():
        return False
    if not torch.equal(found.positions.view(-1, channels), order):
        return False
    conv = nn.Conv2d(channels, dense.out_features, 1, bias=False, device="meta")
    conv.weight = derived(dense.weight.view(*dense.weight.shape, 1, 1), dense.weight)
    conv.bias = dense.bias
    mixed = graph.before(node, conv, found.root, name=f"{graph.name_of(node)}_pixels")
    last = graph.before(node, torch.permute, mixed, (0, 2, 3, 1))
    graph.replace(node, torch.reshape, last, (*shape[:-1], dense.out_features))
    return True


MOVEMENTS = GraphPass("movements", _rewrite)
DENSE_OF_PIXELS = GraphPass("dense layers over channels", _dense_of_pixels)
