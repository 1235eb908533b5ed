"""A prediction of a file or a function, and its figures as plain data, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import refuse_foreign
from tutelage.core.results.figure import Figure, as_json
from tutelage.dpu.predict.energy import BoardPower
from tutelage.dpu.predict.latency import LayerTime, Prediction, predict_graph, read_board
from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.xmodel.graph import Graph

BOUNDS = ("array", "parameters", "maps", "start")
"""What can bind a layer."""

BASIS = (
    "fitted to published figures, not measured here; the ranges hold all networks of the families\n"
    "that were left out of the fit in turn (README, Predict)."
)


def predict_file(path: Path, board: str) -> Prediction:
    """Predict an .xmodel file, quantised or compiled.

    Raises
    ------
    DpuError
        It is not a usable .xmodel, or nothing is known of the board.
    """
    graph = Graph.deserialize(path)
    with contradictions(str(path)):
        refuse_foreign(graph)
    known = read_board(board)
    with contradictions(str(path)):
        return predict_graph(graph, known)


def latency_figure(prediction: Prediction) -> Figure:
    """Return the latency of one image with one thread, ms, with the range of its known errors."""
    low, high = prediction.latency_range()
    return Figure.predicted(1e3 * prediction.latency_seconds, 1e3 * low, 1e3 * high, "ms")


def fps_figure(prediction: Prediction, threads: int | None = None) -> Figure:
    """Return frames per second with so many threads, None for as many as help."""
    return Figure.predicted(prediction.fps(threads), *prediction.fps_range(threads), "fps")


def operations_in(found: object, what: str) -> list[Operation]:
    """Return the operations of a `Sketch` or list.

    Raises
    ------
    DpuError
        It is neither; the text begins with `what`.
    """
    operations = found.operations if isinstance(found, Sketch) else found
    if not isinstance(operations, list) or not all(isinstance(o, Operation) for o in operations):
        raise DpuError(
            f"{what} {type(found).__name__}, not a list of "
            "tutelage.dpu.predict.operations.Operation"
        )
    return operations


def prediction_facts(
    model: str, prediction: Prediction, power: BoardPower | None, threads: Sequence[int] = ()
) -> dict[str, Any]:
    """Return all figures of `tutelage predict`, ready for JSON.

    Latency, speed, energy per frame and power of the whole board are figures with their ranges, see
    `tutelage.core.results.figure.Figure`; other times are ms.
    """
    board, layers = prediction.board, prediction.layers()
    asked: list[int | None] = [1, *(n for n in sorted(set(threads)) if n != 1), None]
    return {
        "model": model,
        "board": board.name,
        "misfit": prediction.misfit,
        "basis": BASIS.replace("\n", " "),
        "macs": sum(operation.macs for operation in prediction.operations),
        "parameters": sum(operation.parameters for operation in prediction.operations),
        "dpu_ms": 1e3 * prediction.job_seconds,
        "cpu_ms": 1e3 * prediction.cpu_seconds,
        "latency_ms": as_json(latency_figure(prediction)),
        "threads": [_speed(prediction, power, count) for count in asked],
        "power": power and as_json(power),
        "bound_ms": {
            bound: 1e3 * sum(layer.seconds for layer in layers if layer.bound == bound)
            for bound in BOUNDS
        },
        "left_to_cpu": [operation.name for operation in prediction.left_to_cpu],
        "layers": [_layer(layer) for layer in layers],
    }


def _speed(prediction: Prediction, power: BoardPower | None, threads: int | None) -> dict[str, Any]:
    fps = fps_figure(prediction, threads)
    joules = power and as_json(power.joules_per_frame(fps))
    return {"threads": threads, "fps": as_json(fps), "joules_per_frame": joules}


def _layer(layer: LayerTime) -> dict[str, Any]:
    work, operation = layer.work, layer.work.operation
    return {
        "name": operation.name,
        "type": operation.kind,
        "kernel": list(operation.kernel),
        "stride": list(operation.stride),
        "output": list(operation.output),
        "macs": operation.macs,
        "cycles": work.cycles,
        "parameter_bytes": work.parameter_bytes,
        "loaded_bytes": work.loaded_bytes,
        "stored_bytes": work.stored_bytes,
        "transfers": work.parameter_loads + work.map_transfers,
        "us": 1e6 * layer.seconds,
        "computing_us": 1e6 * layer.computing,
        "parameters_us": 1e6 * layer.parameters,
        "maps_us": 1e6 * layer.maps,
        "bound": layer.bound,
    }
