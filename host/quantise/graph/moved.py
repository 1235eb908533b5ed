"""The origin of the values of a reshaped, permuted or sliced map.

It is found by running the chain of views, permutations, slices and chunks on a map whose values are
their own positions. So no rules are needed for the many ways to write, say, a channel shuffle.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from tutelage.host.quantise.graph.graph import BATCH, Graph
from tutelage.host.quantise.graph.operations import is_movement, operation

_MOVING_MODULES = (nn.Flatten, nn.Unflatten, nn.ChannelShuffle, nn.PixelUnshuffle)
_LIKE = ("expand_as", "view_as", "reshape_as")  # only the shape of the second operand matters
_MAX_ELEMENTS = 1 << 26
_MAPS = (2, 4)
ANY_RANK = range(2, 9)


@dataclass(frozen=True)
class Moved:
    """The values of a node, as positions in a map.

    Attributes
    ----------
    root : the node whose values are moved
    size : (C, H, W) of the root, without the batch; H = W = 1 if it is not a map
    positions : for each value of the node, without the batch, its position c * H * W + y * W + x in
        the root, int64
    """

    root: fx.Node
    size: tuple[int, int, int]
    positions: Tensor

    @property
    def pixels(self) -> int:
        """Number of pixels of the root, H * W."""
        return self.size[1] * self.size[2]

    def is_in_order(self) -> bool:
        """Return whether the positions are all those of the map, in its order."""
        flat = self.positions.flatten()
        whole = self.size[0] * self.pixels
        return flat.numel() == whole and torch.equal(flat, torch.arange(whole))


def is_moving(graph: Graph, node: fx.Node) -> bool:
    """Return whether a node only moves the values of its first operand."""
    return is_movement(node) or isinstance(graph.module_of(node), _MOVING_MODULES)


def chain_of(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """Return a node and the nodes before it, up to the first that does not only move values."""
    chain = [node]
    while is_moving(graph, chain[-1]):
        chain.append(graph.source(chain[-1]))
    return chain


def moved(graph: Graph, node: fx.Node, ranks: Container[int] = _MAPS) -> Moved | None:
    """Return the origin of a node's values; None if it mixes images, or the root is unsuitable.

    Parameters
    ----------
    node : the end of a chain of movements
    ranks : allowed ranks of the root, including the batch; by default a map or a vector
    """
    chain = chain_of(graph, node)
    root = chain[-1]
    shape = graph.shape(root)
    if len(shape) not in ranks or shape[0] != BATCH or torch.Size(shape).numel() > _MAX_ELEMENTS:
        return None
    positions: Any = torch.arange(torch.Size(shape).numel()).view(shape)
    for step in reversed(chain[:-1]):
        others = step.all_input_nodes[1:]
        if operation(step) not in _LIKE and any(graph.constant(g) is None for g in others):
            return None
        positions = _run(graph, step, positions)
    if not isinstance(positions, Tensor) or positions.shape[0] != BATCH or positions.dim() < 2:
        return None
    whole = torch.Size(shape[1:]).numel()
    first, second = positions.unbind(0)
    if not torch.equal(second, first + whole) or first.max() >= whole:
        return None
    size = (*shape[1:], 1, 1)[:3] if len(shape) in _MAPS else (whole, 1, 1)
    return Moved(root, cast("tuple[int, int, int]", size), first.contiguous())


def moved_alike(
    graph: Graph, node: fx.Node, root: fx.Node, wanted: Tensor, like: fx.Node
) -> fx.Node | None:
    """Move the values of a map to the given positions, and return the node with the result.

    Return None if this is not possible; then the nodes inserted, and the map if nothing else reads
    it, are erased.

    Parameters
    ----------
    node : before which nodes are inserted
    root : the map
    wanted : position in the map of each value of the result, without the batch
    like : a node whose movements are repeated if a reshape is not enough
    """
    shape = (BATCH, *wanted.shape)
    if graph.shape(root) == shape:
        candidate = root
    else:
        candidate = graph.before(node, torch.reshape, root, shape)
    if not _is_at(graph, candidate, wanted):
        try:
            candidate = _repeated(graph, node, root, like)
        except (RuntimeError, IndexError):  # the movements do not fit the map's shape
            candidate = root
    if _is_at(graph, candidate, wanted):
        return candidate
    graph.drop_dead()
    return None


def _is_at(graph: Graph, node: fx.Node, wanted: Tensor) -> bool:
    found = moved(graph, node)
    return found is not None and torch.equal(found.positions, wanted)


def _repeated(graph: Graph, node: fx.Node, root: fx.Node, like: fx.Node) -> fx.Node:
    """Return the result of the movements of `like`, applied to another root."""
    value = root
    for step in reversed(chain_of(graph, like)[:-1]):
        of_step = {graph.source(step): value}
        given: Any = map_arg((step.args, step.kwargs), partial(_exchanged, of_step))
        args, kwargs = given
        what: Any = graph.module_of(step) or step.target
        value = graph.before(node, what, *args, **kwargs)
    return value


def _exchanged(new: dict[fx.Node, fx.Node], given: fx.Node) -> fx.Node:
    return new.get(given, given)


def _run(graph: Graph, node: fx.Node, positions: Any) -> Any:
    source = graph.source(node)

    def value(given: fx.Node) -> Any:
        if operation(node) in _LIKE and given is not source:
            return torch.empty(graph.shape(given), device="meta")
        constant = graph.constant(given)
        return positions if constant is None else constant.cpu()

    args, kwargs = map_arg((node.args, node.kwargs), value)
    module = graph.module_of(node)
    if module is not None:
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return cast("Any", node.target)(*args, **kwargs)
