"""Replace operations in place by ones with a new value, which later readers read."""

from __future__ import annotations

from torch import fx

from tutelage.host.quantise.graph.copies import plain_copy
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.operations import is_in_place, out_of_place
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    if module is not None:
        if not getattr(module, "inplace", False):
            return False
        copied = plain_copy(module)
        copied.inplace = False
        graph.module.set_submodule(str(node.target), copied)
        for caller in graph.nodes:
            if caller.op == "call_module" and caller.target == node.target:
                _read_later(graph, caller)
        return True
    if not is_in_place(node):
        return False
    node.target = out_of_place(node)  # type: ignore[assignment]
    if "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    node.args = tuple(False if arg is True else arg for arg in node.args)
    _read_later(graph, node)
    return True


def _read_later(graph: Graph, node: fx.Node) -> None:
    operand = graph.source(node)
    for user in list(operand.users):
        if node < user:
            user.replace_input_with(operand, node)


IN_PLACE = GraphPass("out of place", _rewrite)
