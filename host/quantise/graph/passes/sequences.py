"""Rewrite sequences [N, C, L] to maps of one row, and vectors with the shape of a map to maps.

One-dimensional convolutions, pools and norms become two-dimensional ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from tutelage.host.quantise.graph.copies import derived, plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import ChannelSelect, RowMap, VectorMap
from tutelage.host.quantise.graph.moved import Moved, is_moving, moved, moved_alike
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_NORM = nn.modules.batchnorm._BatchNorm


def _inputs(graph: Graph, node: fx.Node) -> bool:
    """Rewrite an input [N, C, L] to a map of one row."""
    if node.op != "placeholder" or len(graph.shape(node)) != 3:
        return False
    if any(isinstance(graph.module_of(reader), RowMap) for reader in node.users):
        return False
    row = graph.after(node, RowMap(), node)
    sequence = graph.before(row.next, torch.squeeze, row, 2)
    node.replace_all_uses_with(sequence, delete_user_cb=lambda user: user is not row)
    return True


def _modules(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a layer of a sequence to one of the map with the same values."""
    module = graph.module_of(node)
    if module is None or len(graph.shape(node)) != 3 or not is_moving(graph, graph.source(node)):
        return False
    source = graph.source(node)
    found = moved(graph, source)
    if found is None or not found.is_in_order() or len(graph.shape(found.root)) != 4:
        return False
    if graph.shape(source)[1:] != (found.size[0], found.pixels):
        return False
    new = _of_two_dimensions(graph, module, found)
    if new is None:
        return False
    value = graph.before(node, new, found.root, name=f"{graph.name_of(node)}_map")
    channels, length = graph.shape(node)[1:]
    placed = moved_alike(
        graph, node, value, torch.arange(channels * length).view(channels, length), source
    )
    if placed is None:
        return False
    graph.substitute(node, placed)
    return True


def _of_two_dimensions(graph: Graph, module: nn.Module, found: Moved) -> nn.Module | None:
    """Return the two-dimensional module for a map; None if there is none."""
    if isinstance(module, _NORM):
        return plain_copy(module, nn.BatchNorm2d)
    make = next((made for cls, made in _MAKERS.items() if type(module) is cls), None)
    along = _Along(graph, vertical=found.size[2] == 1 != found.size[1])
    if make is None or 1 not in found.size[1:]:
        single = isinstance(module, nn.Conv1d) and _is_of_single_pixels(module)
        return make(module, along) if make is not None and single else None
    return make(module, along)


def _is_of_single_pixels(conv: nn.Conv1d) -> bool:
    return conv.kernel_size == (1,) and conv.stride == (1,) and conv.padding in ((0,), "same")


class _Along:
    """Converts the arguments of one-dimensional modules to two dimensions.

    Parameters
    ----------
    graph : whose parameters are converted
    vertical : whether the map has one column, rather than one row
    """

    def __init__(self, graph: Graph, vertical: bool) -> None:
        self.graph, self.vertical = graph, vertical

    def pair(self, given: Any, other: Any = 1) -> tuple[Any, Any]:
        """Convert an argument to (height, width), with `other` for the other axis."""
        value = given[0] if isinstance(given, tuple | list) else given
        return (value, other) if self.vertical else (other, value)

    def padding(self, given: Any) -> Any:
        """Convert padding on both sides; names such as "same" are kept."""
        return given if isinstance(given, str) else self.pair(given, 0)

    def weight(self, weight: Tensor) -> nn.Parameter:
        """Return weights with an additional axis; the same object for the same weights."""
        axis = -1 if self.vertical else -2
        key = (id(weight), axis)
        if key not in self.graph.made:
            self.graph.made[key] = derived(weight.unsqueeze(axis), weight), weight
        made: nn.Parameter = self.graph.made[key][0]
        return made


def _conv(conv: Any, along: _Along) -> nn.Module:
    cls: Any = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose1d) else nn.Conv2d
    more = {"padding_mode": conv.padding_mode}
    if cls is nn.ConvTranspose2d:
        more["output_padding"] = along.pair(conv.output_padding, 0)
    new = cls(
        conv.in_channels, conv.out_channels, along.pair(conv.kernel_size),
        along.pair(conv.stride), along.padding(conv.padding), groups=conv.groups, bias=False,
        dilation=along.pair(conv.dilation), device="meta", **more,
    )  # fmt: skip
    new.weight, new.bias = along.weight(conv.weight), conv.bias
    return new


def _pool(pool: Any, along: _Along) -> nn.Module:
    window = along.pair(pool.kernel_size), along.pair(pool.stride), along.pair(pool.padding, 0)
    if isinstance(pool, nn.AvgPool1d):
        return nn.AvgPool2d(*window, pool.ceil_mode, pool.count_include_pad)
    return nn.MaxPool2d(*window, along.pair(pool.dilation), ceil_mode=pool.ceil_mode)


def _pad(pad: Any, along: _Along) -> nn.Module:
    sides = tuple(pad.padding)
    if any(sides[2:]):
        return pad  # along the channels, which the walker refuses
    sides = (0, 0, *sides[:2]) if along.vertical else (*sides[:2], 0, 0)
    return nn.ConstantPad2d(sides, getattr(pad, "value", 0.0))


def _upsample(given: Any, along: _Along) -> nn.Module:
    size = None if given.size is None else along.pair(given.size)
    scale = None if given.scale_factor is None else along.pair(given.scale_factor, 1.0)
    mode = "bilinear" if given.mode == "linear" else given.mode
    return nn.Upsample(size, scale, mode, given.align_corners)


_MAKERS: dict[type[nn.Module], Callable[[Any, _Along], nn.Module]] = {
    nn.Conv1d: _conv, nn.ConvTranspose1d: _conv, nn.MaxPool1d: _pool, nn.AvgPool1d: _pool,
    nn.AdaptiveAvgPool1d: lambda m, a: nn.AdaptiveAvgPool2d(a.pair(m.output_size)),
    nn.AdaptiveMaxPool1d: lambda m, a: nn.AdaptiveMaxPool2d(a.pair(m.output_size)),
    nn.ConstantPad1d: _pad, nn.ZeroPad1d: _pad, nn.ConstantPad2d: _pad, nn.ZeroPad2d: _pad,
    nn.Upsample: _upsample,
}  # fmt: skip

_READERS = (
    nn.modules.conv._ConvNd, _NORM, nn.Upsample, nn.ConstantPad1d, nn.ConstantPad2d,
    nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd,
)  # fmt: skip
"""Modules that read a map or sequence."""


def _vectors(graph: Graph, node: fx.Node) -> bool:
    """Rewrite a vector that is reshaped to a map, by a selection of channels and a `VectorMap`."""
    shape = graph.shape(node)
    readers = [user for user in node.users if isinstance(graph.module_of(user), _READERS)]
    if not is_moving(graph, node) or len(shape) not in (3, 4) or not readers:
        return False
    found = moved(graph, node)
    if found is None or found.pixels != 1 or set(shape[2:]) == {1}:
        return False
    if found.positions.numel() != found.size[0]:
        return False
    size = (shape[1], *((1, *shape[2:])[-2:]))
    places = found.positions.view(size).permute(1, 2, 0).flatten()
    root = found.root
    if len(graph.shape(root)) == 4:
        root = graph.before(node, torch.flatten, root, 1)
    root = graph.before(node, ChannelSelect(places.tolist()), root, name=node.name)
    new = graph.before(node, VectorMap(size), root, name=f"{node.name}_map")
    if len(shape) == 3:
        new = graph.before(node, torch.squeeze, new, 2)
    for reader in readers:
        reader.replace_input_with(node, new)
    return True


SEQUENCE_INPUTS = GraphPass("sequences as rows", _inputs)
SEQUENCES = GraphPass("layers of sequences", _modules)
VECTOR_MAPS = GraphPass("vectors as maps", _vectors)
