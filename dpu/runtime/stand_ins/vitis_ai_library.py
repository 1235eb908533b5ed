"""Stand-in for the Vitis AI Library's Python module: runners of whole graphs."""

from __future__ import annotations

from tutelage.core.errors import not_emulated
from tutelage.dpu.runtime.vart import RunnerExt, graph_runner
from tutelage.dpu.xmodel.graph import Graph


class GraphRunner:
    """Factory of runners from a graph's inputs to its outputs, CPU subgraphs included."""

    @staticmethod
    def create_graph_runner(graph: Graph) -> RunnerExt:
        """Return a runner for a whole compiled graph, with buffers.

        Raises
        ------
        TypeError
            `graph` is not an `xir.Graph`.
        RuntimeError
            The graph is not compiled, or one of its ops cannot be run.
        """
        return graph_runner(graph)


def __getattr__(name: str) -> object:
    raise not_emulated("vitis_ai_library", name)
