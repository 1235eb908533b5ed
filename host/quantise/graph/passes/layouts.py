"""Replace operations that only rearrange or reshape outputs by layouts, computed on the CPU.

An example are detection heads: conv -> permute(0, 2, 3, 1) -> view(N, -1, classes) -> cat. A chain
of such operations is at most a reshape, a transposition and a reshape. Without the transposition it
costs nothing, since no value moves.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import ChannelSelect, Join, Layout, Pick
from tutelage.host.quantise.graph.moved import ANY_RANK, Moved, chain_of, is_moving, moved
from tutelage.host.quantise.graph.operations import cat_axis, cat_parts, operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if node.op != "output":
        return False
    new = {given: _laid_out(graph, given, node) for given in node.all_input_nodes}
    changed = any(new[given] is not given for given in new)
    if changed:
        node.args = map_arg(node.args, lambda given: new[given])
    return changed


def _laid_out(graph: Graph, value: fx.Node, reader: fx.Node) -> fx.Node:
    """Return an output's value as a layout or join; the value itself if none is needed."""
    if is_joined(graph, value):
        parts = [_as_it_is(graph, part, reader) for part in cat_parts(value)]
        if not all(isinstance(graph.module_of(part), Layout | Join) for part in parts):
            return value
        return graph.before(reader, Join(cat_axis(value)), *parts, name=value.name)
    root = chain_of(graph, value)[-1]
    if not is_moving(graph, value) or _is_vector(graph, value, root):
        return value
    if is_joined(graph, root):
        joined = _laid_out(graph, root, root.next)
        for step in list(root.users):
            if step is not joined and is_moving(graph, step):
                step.replace_input_with(root, joined)
    found = moved(graph, value, ANY_RANK)
    return value if found is None else _layout(graph, value, found, reader)


def _as_it_is(graph: Graph, part: fx.Node, reader: fx.Node) -> fx.Node:
    """Return a part of a join as a layout, even if it is a plain map or vector."""
    new = _laid_out(graph, part, reader)
    if new is not part or isinstance(graph.module_of(part), Layout | Join):
        return new
    found = moved(graph, part, ANY_RANK)
    return part if found is None else _layout(graph, part, found, reader)


def is_joined(graph: Graph, node: fx.Node) -> bool:
    """Return whether a node is a concat other than of the channels of maps or vectors."""
    if operation(node) != "cat":
        return False
    rank = len(graph.shape(node))
    if rank == 2:
        return not all(_is_vector(graph, p, chain_of(graph, p)[-1]) for p in cat_parts(node))
    return rank != 4 or cat_axis(node) != 1


def _is_vector(graph: Graph, value: fx.Node, root: fx.Node) -> bool:
    """Return whether a value and its root are vectors or maps of one pixel."""
    shapes = graph.shape(value), graph.shape(root)
    return all(len(shape) in (2, 4) and shape[2:] in ((), (1, 1)) for shape in shapes)


def _layout(graph: Graph, value: fx.Node, found: Moved, reader: fx.Node) -> fx.Node:
    """Return the layout that moves the values of a map in this way; a `Pick` if there is none."""
    root, shape = found.root, graph.shape(value)[1:]
    places = found.positions
    if len(graph.shape(root)) == 4:
        channels, picked = _channels(found)
        if picked is None:
            return _pick(graph, value, found, reader)
        if len(channels) != found.size[0]:
            root = graph.before(reader, ChannelSelect(channels.tolist()), root, name=value.name)
        places = picked % found.pixels * len(channels) + picked // found.pixels
    axes = _axes(places.flatten())
    if axes is None:
        return _pick(graph, value, found, reader)
    graph.note(f"{value.name}: this output is reshaped or permuted on the CPU")
    return _inserted(graph, value, Layout(*axes, shape), root, reader)


def _pick(graph: Graph, value: fx.Node, found: Moved, reader: fx.Node) -> fx.Node:
    return _inserted(graph, value, Pick(found.positions), found.root, reader)


def _inserted(
    graph: Graph, value: fx.Node, module: nn.Module, root: fx.Node, reader: fx.Node
) -> fx.Node:
    """Insert a module with the result of a node, for the same line of the user's code."""
    new = graph.before(reader, module, root, name=f"{value.name}_layout")
    new.stack_trace = value.stack_trace
    return new


def _channels(found: Moved) -> tuple[Tensor, Tensor | None]:
    """Return the channels used, and the positions in a map of only these; None: not whole ones."""
    channels = torch.unique(found.positions // found.pixels)
    if found.positions.numel() != len(channels) * found.pixels:
        return channels, None
    places = torch.searchsorted(channels, found.positions // found.pixels)
    return channels, places * found.pixels + found.positions % found.pixels


def _axes(places: Tensor) -> tuple[list[int], list[int]] | None:
    """Return the shape and the permutation of an array that move its values to these places.

    Return None if there are none. The places of a transposed array are sums of digits times
    strides. The longest run of equal steps is the last digit; the same is repeated with the first
    place of each run.
    """
    if not torch.equal(places.sort().values, torch.arange(len(places))):
        return None
    digits: list[tuple[int, int]] = []  # (stride, length), the last digit first
    while len(places) > 1:
        step = int(places[1] - places[0])
        breaks = (places.diff() != step).nonzero()
        length = int(breaks[0]) + 1 if len(breaks) else len(places)
        if len(places) % length:
            return None
        runs = places.view(-1, length)
        if not torch.equal(runs, runs[:, :1] + step * torch.arange(length)):
            return None
        digits.append((step, length))
        places = runs[:, 0]
    digits.reverse()
    largest_first = sorted(digits, reverse=True)
    stride = 1
    for step, length in reversed(largest_first):
        if step != stride:
            return None
        stride *= length
    split = [length for _, length in largest_first] or [1]
    return split, [largest_first.index(digit) for digit in digits] or [0]


LAYOUTS = GraphPass("shapes and order of outputs", _rewrite)
