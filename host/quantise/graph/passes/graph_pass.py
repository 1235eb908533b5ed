"""What a pass is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from tutelage.host.quantise.graph.graph import Graph


@dataclass(frozen=True)
class GraphPass:
    """A rewriting of a graph that leaves what it computes.

    Attributes
    ----------
    name : what it does, in a word or two
    rewrite : changes the graph around a node where the node is what the pass looks for, and returns
        whether it was. It may remove this node and nodes before it, not those behind
    """

    name: str
    rewrite: Callable[[Graph, fx.Node], bool]

    def run(self, graph: Graph) -> bool:
        """Go over all nodes once and return whether anything changed."""
        changed = False
        for node in graph.nodes:
            if not node._erased:
                changed |= self.rewrite(graph, node)
        return changed
