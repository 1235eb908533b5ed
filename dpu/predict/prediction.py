"""Prediction of a file or function, and its figures as plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import refuse_foreign
from tutelage.core.results.figure import Figure, as_json
from tutelage.dpu.predict.code import SOURCE
from tutelage.dpu.predict.energy import BOUNDS_SOURCE, BoardPower
from tutelage.dpu.predict.latency import LayerTime, Prediction, predict_graph, read_board
from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.xmodel.graph import Graph

BOUNDS = ("array", "parameters", "maps", "start")
"""Parts of a layer's time that can limit it."""

BASIS = (
    "fitted to published figures, not measured here; the ranges span the errors of networks whose\n"
    "family was left out of the fit, from the lowest to the highest (docs: The latency model)."
)

CODE_BASIS = (
    "The file's own code is simulated for one core; the ranges, and how cores slow each other,\n"
    "are those of the layer model."
)
"""Appended to `BASIS` for a file with DPU code."""


def predict_file(path: Path, board: str) -> Prediction:
    """Predict an .xmodel file, quantised or compiled.

    Raises
    ------
    DpuError
        It is not a usable .xmodel, or the board is unknown.
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
    """Return the frames per second with `threads` threads; None for as many as help."""
    return Figure.predicted(prediction.fps(threads), *prediction.fps_range(threads), "fps")


def operations_in(found: object, what: str) -> list[Operation]:
    """Return the operations of a `Sketch` or list.

    Raises
    ------
    DpuError
        It is neither; the message begins with `what`.
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

    Latency, speed, energy per frame and power of the whole board are figures with ranges, see
    `tutelage.core.results.figure.Figure`; `joules_per_frame` and `watts` are measured or estimated
    and accompanied by their bounds. Other times are ms. If the file has DPU code, times are those
    of the code; `bound_ms` and `layers` are those of the layer model, with totals in `code`.
    """
    board, layers = prediction.board, prediction.layers()
    code = _code(prediction)
    basis = f"{BASIS} {CODE_BASIS}" if code else BASIS
    asked: list[int | None] = [1, *(n for n in sorted(set(threads)) if n != 1), None]
    return {
        "model": model,
        "board": board.name,
        "dpu": {"cores": board.cores, "clock_mhz": board.clock_mhz},
        "misfit": prediction.misfit,
        "basis": basis.replace("\n", " "),
        "macs": sum(operation.macs for operation in prediction.operations),
        "parameters": sum(operation.parameters for operation in prediction.operations),
        "dpu_ms": 1e3 * prediction.job_seconds,
        "cpu_ms": 1e3 * prediction.cpu_seconds,
        "latency_ms": as_json(latency_figure(prediction)),
        "threads": [_speed(prediction, power, count) for count in asked],
        "python_fps": prediction.python_fps(),
        "power": power and power_facts(power),
        "bound_ms": {
            bound: 1e3 * sum(layer.seconds for layer in layers if layer.bound == bound)
            for bound in BOUNDS
        },
        "left_to_cpu": [operation.name for operation in prediction.left_to_cpu],
        "layers": [_layer(layer) for layer in layers],
        "code": code,
    }


def _code(prediction: Prediction) -> dict[str, Any] | None:
    """Return the simulated time of the file's code, and that of the layer model for comparison."""
    if prediction.code_cycles is None:
        return None
    by_layers = prediction.layer_model
    return {
        "cycles": round(prediction.code_cycles, 1),
        "dpu_ms": 1e3 * prediction.job_seconds,
        "latency_ms": 1e3 * prediction.latency_seconds,
        "source": SOURCE,
        "layer_model": {
            "dpu_ms": 1e3 * by_layers.job_seconds,
            "latency_ms": 1e3 * by_layers.latency_seconds,
            "fps": by_layers.fps(),
        },
    }


def _speed(prediction: Prediction, power: BoardPower | None, threads: int | None) -> dict[str, Any]:
    fps = fps_figure(prediction, threads)
    if power is None:
        return {"threads": threads, "fps": as_json(fps), "joules_per_frame": None}
    bounds = power.joule_bounds(prediction, threads)
    return {
        "threads": threads,
        "fps": as_json(fps),
        "watts": as_json(power.watts(threads)),
        "joules_per_frame": as_json(power.joules_per_frame(prediction, threads)),
        "joule_bounds": bounds and as_json(bounds),
    }


def power_facts(power: BoardPower) -> dict[str, Any]:
    """Return the power with all cores busy, its bounds, and the sources of both."""
    return {
        "watts": as_json(power.watts()),
        "measured": power.measured,
        "source": power.source,
        "bounds": power.bounds and as_json(power.bounds),
        "bounds_source": BOUNDS_SOURCE,
    }


def _layer(layer: LayerTime) -> dict[str, Any]:
    stage, operation = layer.stage, layer.stage.operation
    return {
        "name": stage.name,
        "type": operation.kind,
        "fused": [fused.kind for fused in stage.operations[1:]],
        "kernel": list(operation.kernel),
        "stride": list(operation.stride),
        "output": list(stage.output),
        "macs": stage.macs,
        "cycles": stage.cycles,
        "parameter_bytes": stage.parameter_bytes,
        "loaded_bytes": stage.loaded_bytes,
        "stored_bytes": stage.stored_bytes,
        "transfers": stage.transfers,
        "us": 1e6 * layer.seconds,
        "computing_us": 1e6 * layer.computing,
        "parameters_us": 1e6 * layer.parameters,
        "maps_us": 1e6 * layer.maps,
        "bound": layer.bound,
    }
