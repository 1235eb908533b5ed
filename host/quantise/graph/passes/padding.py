"""Join zero padding to the convolutions and pools after it."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.copies import plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import PaddedConv2d, Pads
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_LOWEST = -1e30
"""Padding with a value up to this is never the maximum of a map."""


def _standard(graph: Graph, node: fx.Node) -> bool:
    """Replace padding="same" by numbers of pixels, and ConstantPad2d of 0 by ZeroPad2d."""
    module = graph.module_of(node)
    if isinstance(module, nn.ConstantPad2d | nn.ZeroPad2d) and min(module.padding) < 0:
        return _crop(graph, node, module)
    if type(module) is nn.ConstantPad2d and module.value == 0:
        graph.replace(node, nn.ZeroPad2d(module.padding))
        return True
    if not isinstance(module, nn.Conv2d) or not isinstance(module.padding, str):
        return False
    if module.padding_mode != "zeros":
        return False
    totals = [0, 0]
    if module.padding == "same":
        steps = zip(module.kernel_size, module.dilation, strict=True)
        totals = [dilation * (kernel - 1) for kernel, dilation in steps]
    (top, left), (height, width) = [total // 2 for total in totals], totals
    graph.replace(node, padded(module, (left, width - left, top, height - top)))
    return True


def _crop(graph: Graph, node: fx.Node, pad: nn.ConstantPad2d) -> bool:
    """Replace negative padding by a slice of the map; other sides are padded."""
    source = graph.source(node)
    height, width = graph.shape(source)[2:]
    left, right, top, bottom = (max(-side, 0) for side in pad.padding)
    inside = slice(top, height - bottom), slice(left, width - right)
    cropped = graph.before(node, operator.getitem, source, (slice(None), slice(None), *inside))
    left, right, top, bottom = (max(side, 0) for side in pad.padding)
    graph.replace(node, nn.ConstantPad2d((left, right, top, bottom), pad.value), cropped)
    return True


def pads_of(conv: nn.Conv2d) -> Pads:
    """Return the padding (left, right, top, bottom) of a convolution."""
    if isinstance(conv, PaddedConv2d):
        return conv.pads
    assert not isinstance(conv.padding, str)
    height, width = conv.padding
    return width, width, height, height


def padded(conv: nn.Conv2d, pads: Pads) -> nn.Conv2d:
    """Return a copy of a convolution with other padding."""
    left, right, top, bottom = pads
    if left == right and top == bottom:
        new = plain_copy(conv, nn.Conv2d)
        new.padding = top, left
    else:
        new = plain_copy(conv, PaddedConv2d)
        new.padding, new.pads = (0, 0), pads
    # nn.Conv2d pads with this itself if padding_mode is not "zeros".
    new._reversed_padding_repeated_twice = [left, right, top, bottom]
    return new


def _join(graph: Graph, node: fx.Node) -> bool:
    """Join a ZeroPad2d to all of its readers, or to none."""
    pad = graph.module_of(node)
    if not isinstance(pad, nn.ZeroPad2d) or min(pad.padding) < 0 or not node.users:
        return False
    readers = list(node.users)
    joined = [_with_pads(graph.module_of(reader), pad.padding) for reader in readers]
    if not all(joined):
        return False
    for reader, module in zip(readers, joined, strict=True):
        assert module is not None
        graph.replace(reader, module, graph.source(node))
    graph.module.graph.erase_node(node)
    return True


def _with_pads(reader: nn.Module | None, more: Any) -> nn.Module | None:
    """Return a copy of a reader with the padding included; None if it cannot include it."""
    if isinstance(reader, nn.Conv2d) and reader.padding_mode == "zeros":
        left, right, top, bottom = (a + b for a, b in zip(pads_of(reader), more, strict=True))
        return padded(reader, (left, right, top, bottom))
    if not isinstance(reader, nn.AvgPool2d) or reader.padding not in (0, (0, 0)):
        return None
    left, right, top, bottom = more
    kernel = pair(reader.kernel_size)
    if left != right or top != bottom or reader.ceil_mode or reader.divisor_override:
        return None
    if 2 * top > kernel[0] or 2 * left > kernel[1]:
        return None
    return nn.AvgPool2d(reader.kernel_size, reader.stride, (top, left))


def pair(value: Any) -> tuple[int, int]:
    """Return (height, width) from an argument that may be a single number."""
    return (value[0], value[-1]) if isinstance(value, list | tuple) else (value, value)


def _before_max_pool(graph: Graph, node: fx.Node) -> bool:
    """Join padding that is never the maximum to the max pool after it."""
    pool = graph.module_of(node)
    if not isinstance(pool, nn.MaxPool2d) or pair(pool.padding) != (0, 0) or pool.ceil_mode:
        return False
    source = graph.source(node)
    pad = graph.module_of(source)
    lowest = isinstance(pad, nn.ConstantPad2d) and pad.value <= _LOWEST
    zero = isinstance(pad, nn.ZeroPad2d) and is_not_negative(graph, graph.source(source))
    if not (lowest or zero) or pair(pool.dilation) != (1, 1):
        return False
    given = graph.source(source)
    new = _padding_pool(pool, pad.padding, graph.shape(given)[2:], graph.shape(node)[2:])  # type: ignore[union-attr, arg-type]
    if new is not None:
        graph.replace(node, new, given)
        return True
    if lowest and is_not_negative(graph, given):
        node.replace_input_with(source, graph.before(node, nn.ZeroPad2d(pad.padding), given))  # type: ignore[union-attr, arg-type]
        return True
    return False


def _padding_pool(
    pool: nn.MaxPool2d, pads: Pads, size: tuple[int, ...], wanted: tuple[int, ...]
) -> nn.MaxPool2d | None:
    """Return a pool with the effective part of the padding before it; None if there is none."""
    left, _, top, _ = pads
    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    if min(pads) < 0 or 2 * top > kernel[0] or 2 * left > kernel[1]:
        return None
    for ceil in (False, True):
        sizes = []
        for given, before, k, step in zip(size, (top, left), kernel, stride, strict=True):
            room = given + 2 * before - k
            windows = (room + (step - 1 if ceil else 0)) // step + 1
            if ceil and (windows - 1) * step >= given + before:
                windows -= 1
            sizes.append(windows)
        # It may pad less at the bottom and the right, where only padding would be read.
        if tuple(sizes) == tuple(wanted):
            return nn.MaxPool2d(kernel, stride, (top, left), ceil_mode=ceil)
    return None


_NOT_NEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
_KEEPING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d)


def is_not_negative(graph: Graph, node: fx.Node) -> bool:
    """Return whether no value of a node can be negative."""
    module = graph.module_of(node)
    if isinstance(module, _NOT_NEGATIVE):
        return True
    if isinstance(module, _KEEPING):
        return is_not_negative(graph, graph.source(node))
    if isinstance(module, nn.Hardtanh):
        return module.min_val >= 0
    return False


STANDARD_PADDING = GraphPass("padding in pixels", _standard)
JOIN_PADDING = GraphPass("padding into layers", _join)
PADDED_MAX_POOL = GraphPass("padding into max pools", _before_max_pool)
