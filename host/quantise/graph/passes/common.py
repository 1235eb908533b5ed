"""Merge modules without weights that compute the same from the same value."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if module is None or not node.all_input_nodes or [*module.parameters(), *module.buffers()]:
        return False
    for other in graph.source(node).users:
        if not other < node or other.op != "call_module" or other.args != node.args:
            continue
        twin = graph.module_of(other)
        if type(twin) is type(module) and _arguments(twin) == _arguments(module):
            graph.substitute(node, other)
            return True
    return False


def _arguments(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


COMMON = GraphPass("duplicated modules", _rewrite)
