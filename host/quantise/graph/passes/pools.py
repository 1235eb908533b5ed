"""Rewrite pools to the form of the DPU, windows of one size at equal distances."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from tutelage.dpu.ops.limits import MAX_POOL
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.padding import pair

Size = tuple[int, int]


def _adaptive(graph: Graph, node: fx.Node) -> bool:
    """Replace adaptive pools with equal windows by pools, and those that enlarge by upsampling."""
    module = graph.module_of(node)
    if not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return False
    average = isinstance(module, nn.AdaptiveAvgPool2d)
    given, wanted = graph.shape(graph.source(node))[2:], graph.shape(node)[2:]
    if len(given) != 2 or given == wanted or (average and wanted == (1, 1)):
        return False
    if all(size % old == 0 for size, old in zip(wanted, given, strict=True)):
        factors = tuple(float(size // old) for size, old in zip(wanted, given, strict=True))
        graph.replace(node, nn.Upsample(scale_factor=factors, mode="nearest"))
        return True
    windows = [_windows(old, size) for old, size in zip(given, wanted, strict=True)]
    if any(window is None for window in windows):
        return False
    (height, down), (width, right) = windows  # type: ignore[misc]
    cls: Any = nn.AvgPool2d if average else nn.MaxPool2d
    graph.replace(node, cls((height, width), (down, right)))
    return True


def _windows(size: int, wanted: int) -> Size | None:
    """Return length and distance of the windows along an axis; None if they are not all equal.

    Window i is from floor(i * size / wanted) to ceil((i + 1) * size / wanted), as in PyTorch.
    """
    starts = [i * size // wanted for i in range(wanted)]
    lengths = {-(-(i + 1) * size // wanted) - start for i, start in enumerate(starts)}
    steps = {b - a for a, b in pairwise(starts)} or {size}
    if len(lengths) != 1 or len(steps) != 1:
        return None
    return lengths.pop(), steps.pop()


def _standard(graph: Graph, node: fx.Node) -> bool:
    """Reset modes that make no difference to those of the DPU, and make a divisor a factor."""
    module = graph.module_of(node)
    if not isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
        return False
    kernel, padding = pair(module.kernel_size), pair(module.padding)
    if isinstance(module, nn.MaxPool2d):
        if not module.ceil_mode or pair(module.dilation) != (1, 1):
            return False
        if _floor_size(graph, node, module) != graph.shape(node)[2:]:
            return False
        graph.replace(node, nn.MaxPool2d(kernel, pair(module.stride), padding))
        return True
    passes_border = module.ceil_mode and _floor_size(graph, node, module) != graph.shape(node)[2:]
    standard = not module.ceil_mode and module.count_include_pad and not module.divisor_override
    if standard or passes_border or (padding != (0, 0) and not module.count_include_pad):
        return False
    divisor = module.divisor_override
    pool = nn.AvgPool2d(kernel, pair(module.stride), padding)
    graph.replace(node, pool)
    if divisor:
        pooled = next(n for n in graph.nodes if graph.module_of(n) is pool)
        factor = torch.full((graph.shape(pooled)[1],), kernel[0] * kernel[1] / divisor)
        scaled = graph.after(pooled, Affine(factor, torch.zeros_like(factor)), pooled)
        pooled.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)
    return True


def _floor_size(graph: Graph, node: fx.Node, pool: Any) -> tuple[int, ...]:
    """Return the rows and columns of a pool's result without ceil_mode."""
    axes = zip(
        graph.shape(graph.source(node))[2:], pair(pool.kernel_size), pair(pool.stride),
        pair(pool.padding), strict=True,
    )  # fmt: skip
    return tuple((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in axes)


def _row_then_column(graph: Graph, node: fx.Node) -> bool:
    """Merge averages over rows and over columns to one over the whole map."""
    if not isinstance(graph.module_of(node), nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return False
    if graph.shape(node)[2:] != (1, 1):
        return False
    before = graph.source(node)
    first = graph.module_of(before)
    if not isinstance(first, nn.AvgPool2d) or not graph.has_one_reader(before):
        return False
    given, between = graph.shape(graph.source(before))[2:], graph.shape(before)[2:]
    whole = pair(first.kernel_size) in ((1, given[1]), (given[0], 1)) and 1 in between
    if not whole or pair(first.padding) != (0, 0):
        return False
    graph.replace(node, nn.AdaptiveAvgPool2d(1), graph.source(before))
    return True


def _large(graph: Graph, node: fx.Node) -> bool:
    """Split an average over a map larger than the DPU's windows into averages over its parts."""
    if not isinstance(graph.module_of(node), nn.AdaptiveAvgPool2d):
        return False
    size = graph.shape(graph.source(node))[2:]
    if graph.shape(node)[2:] != (1, 1) or max(size) <= MAX_POOL:
        return False
    parts = _part(size[0]), _part(size[1])
    if 0 in parts:
        return False
    first = graph.before(node, nn.AvgPool2d(parts), graph.source(node), name=node.name)
    node.replace_input_with(graph.source(node), first)
    return True


def _part(length: int) -> int:
    """Return the smallest part of an axis that gives no more than MAX_POOL parts; 0: none."""
    parts = (part for part in range(1, MAX_POOL + 1) if length % part == 0)
    return next((part for part in parts if length // part <= MAX_POOL), 0)


def _one_pixel(graph: Graph, node: fx.Node) -> bool:
    """Replace averages of one pixel by max pools, which do not round."""
    module = graph.module_of(node)
    if not isinstance(module, nn.AvgPool2d) or pair(module.kernel_size) != (1, 1):
        return False
    graph.replace(node, nn.MaxPool2d(1, pair(module.stride)))
    return True


ADAPTIVE_POOLS = GraphPass("adaptive pools", _adaptive)
STANDARD_POOLS = GraphPass("modes of pools", _standard)
ROW_THEN_COLUMN = GraphPass("averages of averages", _row_then_column)
LARGE_AVERAGES = GraphPass("averages over large maps", _large)
ONE_PIXEL_POOLS = GraphPass("averages of one pixel", _one_pixel)
