"""Remove operations without effect in evaluation mode, such as dropouts and identities."""

from __future__ import annotations

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.modules import Affine, ChannelSelect
from tutelage.host.quantise.graph.operations import operation
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass
from tutelage.host.quantise.graph.passes.padding import pair

_DROPOUTS = nn.modules.dropout._DropoutNd
_PICKING = (nn.MaxPool2d, nn.AvgPool2d)
_FITTING = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Upsample)


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if not graph.shape(node) or not node.all_input_nodes:
        return False
    source = graph.source(node)
    if not _does_nothing(graph, node) or graph.shape(node) != graph.shape(source):
        return False
    graph.substitute(node, source)
    return True


def _does_nothing(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if module is None:
        return _is_concat_of_one(node)
    if isinstance(module, _PICKING):
        return pair(module.kernel_size) == pair(module.stride) == (1, 1)
    if isinstance(module, ChannelSelect):
        return module.channels == tuple(range(graph.shape(graph.source(node))[1]))
    if isinstance(module, Affine):
        return bool((module.scale == 1).all() and (module.shift == 0).all())
    if isinstance(module, nn.ConstantPad2d | nn.ZeroPad2d):
        return not any(module.padding)
    return isinstance(module, (nn.Identity, _DROPOUTS, *_FITTING))


def _is_concat_of_one(node: fx.Node) -> bool:
    given = node.args[0] if node.args else None
    return operation(node) == "cat" and isinstance(given, list | tuple) and len(given) == 1


IDENTITIES = GraphPass("identities", _rewrite)
