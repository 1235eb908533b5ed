"""A softmax or sigmoid at the end leaves the graph: the CPU computes it from the logits."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.operations import is_movement
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.Softmax: "softmax", nn.LogSoftmax: "softmax", nn.Softmax2d: "softmax",
    nn.Sigmoid: "sigmoid", nn.LogSigmoid: "sigmoid",
}  # fmt: skip


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    if node.op != "output":
        return False
    returned: Any = node.args[0]
    if isinstance(returned, fx.Node) and isinstance(returned.target, type):  # a named tuple
        node.args = (returned.args,)
        return True
    if isinstance(returned, dict):
        node.args = (tuple(returned.values()),)
        return True
    changed = False
    outputs = returned if isinstance(returned, list | tuple) else (returned,)
    for place, given in enumerate(outputs):
        changed |= isinstance(given, fx.Node) and _strip(graph, given, place)
    return changed


def _strip(graph: Graph, node: fx.Node, place: int) -> bool:
    while is_movement(node) and graph.has_one_reader(node):
        node = graph.source(node)
    module = graph.module_of(node)
    activation = _ACTIVATIONS.get(type(module)) if module is not None else None
    if (
        activation is None
        or not graph.has_one_reader(node)
        or not _is_over_classes(graph, node, module)
    ):
        return False
    assert module is not None
    graph.activation, graph.stripped[place] = activation, module
    graph.note(f"{node.name}: the {activation} at the end runs on the CPU")
    graph.substitute(node, graph.source(node))
    return True


def _is_over_classes(graph: Graph, node: fx.Node, module: Any) -> bool:
    """Whether a softmax is along the axis of the classes; without an axis PyTorch takes that."""
    if not isinstance(module, nn.Softmax | nn.LogSoftmax):
        return True
    return module.dim is None or module.dim % len(graph.shape(node)) == 1


OUTPUT_ACTIVATION = GraphPass("activation at the end", _rewrite)
