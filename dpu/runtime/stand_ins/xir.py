"""Stand-in for the board's `xir`: `dpu.runtime.xir`, with file names only as str, as pybind11."""

from __future__ import annotations

from typing import Any

from tutelage.dpu.runtime.xir import (
    DataType,
    GraphTemplate,
    Op,
    OpTemplate,
    Subgraph,
    Tensor,
    __getattr__,
)
from tutelage.dpu.runtime.xir import Graph as _Graph

__all__ = ["DataType", "Graph", "GraphTemplate", "Op", "OpTemplate", "Subgraph", "Tensor",
           "__getattr__"]  # fmt: skip


class Graph(_Graph):
    """A whole network."""

    @classmethod
    def deserialize(cls, fname: Any) -> Graph:
        """Read an .xmodel."""
        graph = super().deserialize(_name(fname))
        assert isinstance(graph, Graph)
        return graph

    def serialize(self, fname: Any) -> None:
        """Write an .xmodel."""
        super().serialize(_name(fname))

    def save_as_dot(self, fname: Any) -> None:
        """Write the graph as Graphviz source."""
        super().save_as_dot(_name(fname))

    def save_as_image(self, fname: Any, format: str) -> None:
        """Draw the graph with Graphviz's `dot` program."""
        super().save_as_image(_name(fname), format)


def _name(fname: Any) -> str:
    if not isinstance(fname, str):
        raise TypeError(f"xir takes file names as str, not {type(fname).__name__}")
    return fname
