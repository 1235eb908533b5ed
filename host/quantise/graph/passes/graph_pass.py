"""The interface of a pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from tutelage.host.quantise.graph.graph import Graph


@dataclass(frozen=True)
class GraphPass:
    """A rewriting of a graph that does not change what it computes.

    Attributes
    ----------
    name : a short description
    rewrite : changes the graph around a node if the pass applies there, and returns whether it did.
        It may erase this node and nodes before it, but no later ones
    """

    name: str
    rewrite: Callable[[Graph, fx.Node], bool]

    def run(self, graph: Graph) -> bool:
        """Apply the pass to all nodes once, and return whether anything changed."""
        changed = False
        for node in graph.nodes:
            if not node._erased:
                changed |= self.rewrite(graph, node)
        return changed
