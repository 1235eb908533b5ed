"""Split a dense layer over several flattened maps into a sum of dense layers, one for each."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.copies import derived
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    dense = graph.module_of(node)
    if not isinstance(dense, nn.Linear) or len(graph.shape(node)) != 2:
        return False
    concat = graph.source(node)
    parts: Any = concat.args[0] if operation(concat) == "cat" and concat.args else ()
    if not isinstance(parts, list | tuple) or len({_pixels(graph, part) for part in parts}) < 2:
        return False
    columns = [graph.shape(part)[1] for part in parts]
    total: Any = None
    for part, weight in zip(parts, dense.weight.split(columns, 1), strict=True):
        layer: Any = nn.Linear(weight.shape[1], dense.out_features, bias=False, device="meta")
        layer.weight = derived(weight, dense.weight)
        layer.bias = dense.bias if total is None else None
        value = graph.before(node, layer, part, name=f"{graph.name_of(node)}_part")
        total = value if total is None else graph.before(node, torch.add, total, value)
    graph.substitute(node, total)
    return True


def _pixels(graph: Graph, part: fx.Node) -> tuple[int, ...]:
    """Return the rows and columns of the map that is flattened; (1, 1) for a vector."""
    flat = part.target is torch.flatten
    return (*graph.shape(graph.source(part))[2:], 1, 1)[:2] if flat else (1, 1)


SPLIT_DENSE = GraphPass("dense layers over several maps", _rewrite)
