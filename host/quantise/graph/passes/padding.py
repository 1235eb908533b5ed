"""Zero padding joins the convolutions and average pools behind it."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph, plain_copy
from tutelage.host.quantise.graph.modules import PaddedConv2d, Pads
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_LOWEST = -1e30
"""A padding below this one is never a map's maximum."""


def _standard(graph: Graph, node: fx.Node) -> bool:
    """A convolution with padding="same" gets its number of pixels, ConstantPad2d(0) its name."""
    module = graph.module_of(node)
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


def pads_of(conv: nn.Conv2d) -> Pads:
    """Return the padding (left, right, top, bottom) of a convolution."""
    if isinstance(conv, PaddedConv2d):
        return conv.pads
    assert not isinstance(conv.padding, str)
    height, width = conv.padding
    return width, width, height, height


def padded(conv: nn.Conv2d, pads: Pads) -> nn.Conv2d:
    """Return a convolution with other padding."""
    left, right, top, bottom = pads
    if left == right and top == bottom:
        new = plain_copy(conv, nn.Conv2d)
        new.padding = top, left
    else:
        new = plain_copy(conv, PaddedConv2d)
        new.padding, new.pads = (0, 0), pads
    # What nn.Conv2d pads with by itself where padding_mode is not "zeros".
    new._reversed_padding_repeated_twice = [left, right, top, bottom]
    return new  # type: ignore[no-any-return]


def _join(graph: Graph, node: fx.Node) -> bool:
    """ZeroPad2d joins all of its readers, or none."""
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
    """A reader that pads by itself; None where it cannot."""
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
    """Return (height, width) of an argument that may be one number."""
    return (value[0], value[-1]) if isinstance(value, list | tuple) else (value, value)


def _before_max_pool(graph: Graph, node: fx.Node) -> bool:
    """Padding that is never the maximum joins the max pool behind it."""
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
    """A pool that pads by itself as much as the padding in front of it has effect."""
    left, right, top, bottom = pads
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
        # Fewer pixels behind the map than the padding had: only padding is left out.
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
