"""Emulation of XIR's Python module, with graphs, subgraphs, ops and tensors of an .xmodel.

Names and behaviour follow the pybind11 module `xir` of Vitis AI 2.5 to 3.5; `dpu/runtime/shim.py`
makes it importable under that name.
"""

from __future__ import annotations

from typing import Any

import tutelage.dpu.engine  # noqa: F401 - installs the op types of graphs
from tutelage.core.errors import not_emulated
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.dpu.xmodel.tensor import DataType, Tensor

__all__ = ["DataType", "Graph", "GraphTemplate", "Op", "OpTemplate", "Subgraph", "Tensor"]


def __getattr__(name: str) -> Any:
    raise not_emulated("xir", name)


class _Template:
    """A class that the binding exports but that cannot be instantiated from Python."""

    def __init__(self, *_: object) -> None:
        raise TypeError(f"xir.{type(self).__name__}: only XIR's C++ code creates instances")


class OpTemplate(_Template):
    """An op of a pattern that XIR's C++ code matches."""


class GraphTemplate(_Template):
    """A graph pattern that XIR's C++ code matches."""
