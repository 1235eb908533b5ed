"""Fold norms of flattened maps into the dense layers after them; the DPU's are by channel."""

from __future__ import annotations

import torch
from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


@torch.no_grad()
def frozen_norm(norm: nn.modules.batchnorm._NormBase) -> Affine:
    """Return the factors and summands of a norm with its running statistics."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight, shift * norm.weight + norm.bias
    return Affine(scale, shift, norm.weight, norm.bias)


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    norm = graph.module_of(node)
    if not isinstance(norm, nn.modules.batchnorm._NormBase) or norm.running_mean is None:
        return False
    source = graph.source(node)
    if source.target is not torch.flatten or not node.users:
        return False
    if graph.shape(graph.source(source))[2:] in ((), (1, 1)):
        return False
    if not all(isinstance(graph.module_of(reader), nn.Linear) for reader in node.users):
        return False
    graph.note(f"{node.target}: a norm of single pixels is folded into the dense layer after it, "
               "and its statistics are no longer updated")  # fmt: skip
    graph.replace(node, frozen_norm(norm))
    return True


FLAT_NORMS = GraphPass("norms of flattened maps", _rewrite)
