"""What the compiler for boards makes of a quantised graph: where it runs, memory and time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from tutelage.core.errors import DpuError, TutelageError
from tutelage.dpu.compiler.board.emit import INPUTS, OUTPUTS, WORKSPACE
from tutelage.dpu.compiler.board.graph import BoardModel, compile_for_board
from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.predict.latency import Prediction, predict_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.target import load_target
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.quantise.walker import InputShape

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """A quantised graph on a board.

    Attributes
    ----------
    on_cpu : names of ops that the DPU does not compute, with the reasons
    prediction : by the DPU's code, or by layers where there is none
    parts : DPU subgraphs
    memory : bytes of the DPU's memory by use: parameters, workspace, inputs and outputs
    refusal : why nothing of it runs on the DPU; "" where something does
    """

    on_cpu: dict[str, str]
    prediction: Prediction
    parts: int
    memory: dict[str, int]
    refusal: str = ""


def fit_board(graph: Graph, board: str) -> Fit:
    """Compile a quantised graph for a board, without writing anything.

    Raises
    ------
    CompileUsageError, DpuError
        The board is not known, or the graph contradicts itself.
    """
    target = load_target(board)
    try:
        found = compile_for_board(graph, target.fingerprint)
    except DpuError as error:
        return Fit(on_cpu(graph), predict_graph(graph, board), 0, {}, str(error))
    return Fit(found.on_cpu, predict_graph(found.graph, board), len(found.parts), _memory(found))


def _memory(model: BoardModel) -> dict[str, int]:
    """Parts share their workspace only in time, so each has its own."""
    sizes = [part.sizes for part in model.parts]
    return {
        "parameters": sum(len(part.parameters) for part in model.parts),
        "workspace": sum(size.get(WORKSPACE, 0) for size in sizes),
        "inputs_and_outputs": sum(size.get(INPUTS, 0) + size.get(OUTPUTS, 0) for size in sizes),
    }


def obstacle(network: nn.Module, input_shape: InputShape) -> str:
    """Return the first reason why a float network will not run on the DPU; "" where it will.

    Nothing is calibrated and no weights are needed; thresholds do not change where a layer runs.
    """
    try:
        with silenced():
            return obstacle_of(Student(network, input_shape))
    except TutelageError as error:
        return str(error)


def obstacle_of(student: Student) -> str:
    """Return the first reason why `tutelage export` would refuse a student; "" where it would not.

    Raises
    ------
    NotDeployable
        See `to_quantised`.
    """
    outside = on_cpu(to_quantised(student, "network", clip=True))
    return next((f"{op}: {reason}" for op, reason in outside.items()), "")


@contextmanager
def silenced() -> Iterator[list[str]]:
    """Collect what the quantiser would log as warnings, such as a norm that costs time."""
    notes: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.append(record.getMessage())

    logger = logging.getLogger("tutelage.host.quantise")
    handler, passes_on = Keep(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
        logger.propagate = passes_on
