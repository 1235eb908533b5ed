"""The result of compiling a quantised graph for a board: ops on the CPU, memory and time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.core.errors import DpuError, TutelageError
from tutelage.core.fingerprint import dpu_parts
from tutelage.dpu.compiler.board.graph import compile_for_board
from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.predict.latency import Prediction, predict_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.subgraph import Subgraph
from tutelage.host.compile.check import ops_on_cpu
from tutelage.host.compile.target import load_target
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.quantise.walker import InputShape


@dataclass(frozen=True)
class Fit:
    """A graph compiled for a board.

    Attributes
    ----------
    on_cpu : op name -> the reason why the DPU does not compute it
    prediction : from the DPU's code, or from the layers if there is no code
    parts : number of DPU subgraphs
    memory : use (parameters, workspace, inputs_and_outputs) -> bytes of the DPU's memory
    refusal : why the board's DPU cannot run any of it; "" if it can
    """

    on_cpu: dict[str, str]
    prediction: Prediction
    parts: int
    memory: dict[str, int]
    refusal: str = ""


def fit_board(graph: Graph, board: str) -> Fit:
    """Compile a quantised graph for a board in memory; a compiled graph is used unchanged.

    Raises
    ------
    CompileUsageError
        The board is not known.
    DpuError
        The graph is inconsistent.
    """
    if dpu_parts(graph):
        outside = {op.get_name(): "compiled for the CPU" for op in ops_on_cpu(graph)}
        return _fit(graph, outside, board)
    target = load_target(board)
    try:
        found = compile_for_board(graph, target.fingerprint)
    except DpuError as error:
        return Fit(on_cpu(graph), predict_graph(graph, board), 0, {}, str(error))
    return _fit(found.graph, found.on_cpu, board)


def _fit(compiled: Graph, outside: dict[str, str], board: str) -> Fit:
    prediction, parts = predict_graph(compiled, board), dpu_parts(compiled)
    return Fit(outside, prediction, len(parts), _memory(parts), prediction.misfit)


def _memory(parts: Sequence[Subgraph]) -> dict[str, int]:
    """Return the total size of the registers of DPU subgraphs, bytes, for each use."""
    memory = dict.fromkeys(_USES.values(), 0)
    for part in parts:
        uses = _attribute(part, "reg_id_to_context_type_v2")
        uses = uses or _attribute(part, "reg_id_to_context_type")
        for register, size in _attribute(part, "reg_id_to_size").items():
            memory[_USES.get(str(uses.get(register)), "workspace")] += int(size)
    return memory


_USES = {"CONST": "parameters", "WORKSPACE": "workspace", "INTERFACE": "inputs_and_outputs"}


def _attribute(part: Subgraph, name: str) -> dict[str, Any]:
    found = part.get_attr(name) if part.has_attr(name) else {}
    return found if isinstance(found, dict) else {}


def obstacle(network: nn.Module, input_shape: InputShape, replace: Mapping[str, str]) -> str:
    """Return the first reason why a float network cannot run on the DPU; "" if it can.

    Neither calibration nor trained weights are needed: thresholds do not affect where a layer runs.

    Parameters
    ----------
    input_shape : (C, H, W) of an image, or one shape for each input
    replace : see `tutelage.host.quantise.trace.trace`
    """
    try:
        with silenced():
            return obstacle_of(Student(network, input_shape, replace=replace))
    except TutelageError as error:
        return str(error)


def obstacle_of(student: Student) -> str:
    """Return the first reason why `tutelage export` would refuse a student; "" if it would not.

    Raises
    ------
    NotDeployable
        See `to_quantised`.
    """
    outside = on_cpu(to_quantised(student, "network", clip=True))
    return next((f"{op}: {reason}" for op, reason in outside.items()), "")


@contextmanager
def silenced() -> Iterator[Warnings]:
    """Collect the warnings of the quantiser, such as one about a slow norm, without logging."""
    found = Warnings(logging.WARNING)
    logger = logging.getLogger("tutelage.host.quantise")
    passes_on = logger.propagate
    logger.addHandler(found)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(found)
        logger.propagate = passes_on


class Warnings(logging.Handler):
    """Collect warnings. Those that differ only in their first argument, the place, are one kind."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._texts: dict[tuple[object, ...], list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        key = (record.msg, *map(str, arguments[1:]))
        texts = self._texts.setdefault(key, [])
        if record.getMessage() not in texts:
            texts.append(record.getMessage())

    def lines(self) -> list[str]:
        """Return one line for each kind of warning."""
        more = [f" ({len(texts) - 1} more of these)" if len(texts) > 1 else ""
                for texts in self._texts.values()]  # fmt: skip
        return [texts[0] + end for texts, end in zip(self._texts.values(), more, strict=True)]
