"""Replace modules derived from PyTorch's by PyTorch's own, with their computed weights."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from tutelage.host.networks.norm import SyncedBatchNorm2d
from tutelage.host.quantise.graph.copies import derived, plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.tracer import torch_class

log = logging.getLogger(__name__)


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if module is None:
        return False
    computed = _computed_weights(module)
    cls = torch_class(module)
    if cls is None or (type(module) in (cls, SyncedBatchNorm2d) and not computed):
        return False
    new = plain_copy(module, cls)
    for name, weight in computed.items():
        new.__dict__.pop(name, None)
        new._parameters[name] = derived(weight, *module.parameters())
    if computed:
        new._modules.pop("parametrizations", None)
        graph.note(
            f"{node.target}: computed weights (such as by weight norm) become constant values"
        )
    graph.module.set_submodule(str(node.target), new)
    return True


@torch.no_grad()
def _computed_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that a parametrisation, or a hook before each call, computes."""
    if parametrize.is_parametrized(module):
        assert isinstance(module.parametrizations, nn.ModuleDict)
        return {name: getattr(module, name) for name in module.parametrizations}
    names = {"weight", "bias"} - set(module._parameters) - set(module._buffers)
    found = {name: getattr(module, name, None) for name in names}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


PLAIN_MODULES = GraphPass("plain modules", _rewrite)
