"""The compiler for boards, from a quantised graph to one with DPU code.

    found = compile_for_board(Graph.deserialize("quantised.xmodel"), 0x101000016010407)
    found.graph.serialize("model.xmodel")
    found.on_cpu                          # ops on the CPU, with the reasons

The passes are, in order: `fuse` (dpu/compiler/emulation.py) creates int8 ops and assigns them to
devices, layers.py finds the layers and stores.py their memory, plan.py decides what stays on the
chip, memory.py places the rest in the DDR, emit.py generates instructions, and dpu/isa/tokens.py
synchronises them. If a pass refuses an op, it is moved to the CPU and all passes start again.

No file that it compiled has run on a real DPU so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import tutelage
from tutelage.core.errors import UnsupportedError
from tutelage.core.fingerprint import dpu_parts
from tutelage.dpu.compiler.board.part import Part, compile_part, seal
from tutelage.dpu.compiler.emulation import Fused, fuse
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.xmodel.graph import Graph

COMPILER = "Tutelage's own compiler, dpu/compiler/board"
"""Display name of the compiler."""

NOTE = "tutelage_compiler"
"""Attribute of a graph that names its compiler."""


@dataclass(frozen=True)
class BoardModel:
    """A graph compiled for a board's DPU.

    Attributes
    ----------
    graph : graph in compiled form, with code
    parts : DPU subgraphs, in order
    on_cpu : names of quantised ops that are on the CPU -> the reasons
    """

    graph: Graph
    parts: list[Part]
    on_cpu: dict[str, str]


def compile_for_board(graph: Graph, fingerprint: int) -> BoardModel:
    """Compile a quantised graph for a DPU.

    Parameters
    ----------
    fingerprint : fingerprint of the DPU, a DPUCZDX8G with the instruction set ISA1

    Raises
    ------
    UnsupportedError
        The DPU is of another kind, the graph is already compiled, or no op can run on the DPU.
    XmodelError
        The graph is inconsistent.
    """
    refused: dict[str, str] = {}
    while True:
        fused = fuse(graph, refused)
        subgraphs = dpu_parts(fused.graph)
        if not subgraphs:
            reasons = "; ".join(f"{op}: {reason}" for op, reason in fused.reasons.items())
            raise UnsupportedError(f"{graph.get_name()}: no op can run on the DPU: {reasons}")
        try:
            parts = [compile_part(subgraph, fingerprint) for subgraph in subgraphs]
        except Refusal as refusal:
            _refuse(refused, fused, refusal)
            continue
        for subgraph, part in zip(subgraphs, parts, strict=True):
            seal(subgraph, part, fingerprint)
        fused.graph.set_attr(NOTE, f"{COMPILER}, {tutelage.__version__}")
        return BoardModel(fused.graph, parts, fused.reasons)


def _refuse(refused: dict[str, str], fused: Fused, refusal: Refusal) -> None:
    """Move the quantised op that caused a refusal to the CPU.

    Raises
    ------
    UnsupportedError
        There is none, or it is already there.
    """
    source = _source_of(refusal.op, fused)
    if not source or source in refused:
        raise UnsupportedError(f"{refusal.op or 'a layer'}: {refusal}")
    refused[source] = str(refusal)


def _source_of(layer: str, fused: Fused) -> str:
    """Return the quantised op that a layer's op was created from; "" if there is none.

    A layer has the name of its op, perhaps with ":" and a suffix. Of several ops that one quantised
    op became, as a dense layer does, only the last is in `sources`.
    """
    op = fused.graph.get_op(layer) or fused.graph.get_op(layer.rpartition(":")[0])
    while op is not None and op.get_name() not in fused.sources:
        readers = op.get_fanout_ops()
        op = readers[0] if readers and op.get_type() not in ("upload", "download") else None
    return "" if op is None else fused.sources[op.get_name()]
