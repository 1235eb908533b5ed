"""What `tutelage predict` tells: a prediction as plain data, and as lines for a terminal."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import refuse_foreign
from tutelage.core.text import LONGEST_NAME, shown
from tutelage.dpu.inspect.listing import MAX_CELL, MAX_ROWS, columns, dims_text
from tutelage.dpu.predict.energy import Watts
from tutelage.dpu.predict.latency import LayerTime, Prediction, predict, predict_graph, read_board
from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.xmodel.graph import Graph

BASIS = (
    "fitted to published figures, not measured here; the ranges hold all networks of the families\n"
    "that were left out of the fit in turn (README, Predict)."
)

BOUNDS = {
    "array": "computing",
    "parameters": "loading parameters",
    "maps": "loading and saving maps",
    "start": "each layer's start",
}
"""What can bind a layer, in words."""


def prediction_of(model: str, board: str) -> Prediction:
    """Predict an .xmodel file, or the operations that MODULE:FUNCTION returns.

    Raises
    ------
    DpuError
        No usable .xmodel, no function that returns operations or a `Sketch`, or nothing is known
        of the board.
    """
    if re.fullmatch(r"[A-Za-z_][\w.]*:\w+", model) and not Path(model).exists():
        return predict(_called(model), board)
    graph = Graph.deserialize(Path(model))
    with contradictions(model):
        refuse_foreign(graph)
    known = read_board(board)
    with contradictions(model):
        return predict_graph(graph, known)


def _called(name: str) -> list[Operation]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise DpuError(f"{name}: {error}") from error
    return operations_in(found, f"{name} gives")


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
            "tutelage.dpu.predict.operations.Operation; for a network of PyTorch: tutelage predict"
        )
    return operations


def prediction_facts(
    model: str, prediction: Prediction, watts: Watts | None, threads: Sequence[int] = ()
) -> dict[str, Any]:
    """Everything that `predict` tells, ready for JSON.

    Times are ms, energies J per frame of the whole board, ranges [least, most].
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
        "latency_ms": 1e3 * prediction.latency_seconds,
        "latency_range_ms": [1e3 * seconds for seconds in prediction.latency_range()],
        "threads": [_speed(prediction, watts, count) for count in asked],
        "power": None if watts is None else {
            "watts": [watts.low, watts.high], "source": watts.source, "measured": watts.measured,
        },
        "bound_ms": {
            bound: 1e3 * sum(layer.seconds for layer in layers if layer.bound == bound)
            for bound in BOUNDS
        },
        "left_to_cpu": [operation.name for operation in prediction.left_to_cpu],
        "layers": [_layer(layer) for layer in layers],
    }  # fmt: skip


def _speed(prediction: Prediction, watts: Watts | None, threads: int | None) -> dict[str, Any]:
    slowest, fastest = prediction.fps_range(threads)
    return {
        "threads": threads,
        "fps": prediction.fps(threads),
        "fps_range": [slowest, fastest],
        "joules_per_frame": None if watts is None else list(watts.joules(slowest, fastest)),
    }


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


HEAD = (
    "#", "type", "kernel", "output", "MACs", "cycles", "parameters [B]", "loaded [B]", "stored [B]",
    "time [us]", "share", "bound by", "name",
)  # fmt: skip
"""Columns of the table; cycles are the array's."""


def prediction_lines(facts: dict[str, Any], layers: bool = True) -> list[str]:
    """The facts for a terminal; with `layers` the table of them."""
    text = [
        f"{facts['model']} on {facts['board']}: {facts['macs']:,} MACs, "
        f"{facts['parameters']:,} parameters"
    ]
    if facts["misfit"]:
        text.append(f"{facts['misfit']}; the figures are of the file's array at the board's clock")
    text += ["", *_table(facts["layers"]), ""] if layers else []
    text += [
        f"DPU      {digits(facts['dpu_ms'])} ms on one core: " + _shares(facts),
        f"CPU      {digits(facts['cpu_ms'])} ms before and behind it",
        f"latency  {_ranged(facts['latency_ms'], facts['latency_range_ms'], 'ms')}, one thread",
        *(_speed_line(speed, facts["power"]) for speed in facts["threads"]),
    ]
    if facts["power"]:
        low, high = map(digits, facts["power"]["watts"])
        text.append(f"power    {low} to {high} W, the whole board: {facts['power']['source']}")
    left = facts["left_to_cpu"]
    if left:
        names = ", ".join(shown(name, MAX_CELL) for name in left[:8]) + (
            ", ..." if len(left) > 8 else ""
        )
        text.append(f"not predicted: {len(left)} ops of the CPU: {names}")
    return [shown(line) for line in [*text, *BASIS.split("\n")]]


def _shares(facts: dict[str, Any]) -> str:
    total = facts["dpu_ms"] or 1
    found = sorted(facts["bound_ms"].items(), key=lambda item: -item[1])
    return ", ".join(f"{ms / total:.0%} {BOUNDS[bound]}" for bound, ms in found if ms)


def _speed_line(speed: dict[str, Any], power: dict[str, Any] | None) -> str:
    count = speed["threads"]
    name = "threads  " + ("as many as help" if count is None else str(count))
    line = f"{name}: {_ranged(speed['fps'], speed['fps_range'], 'fps')}"
    if power:
        least, most = (digits(1e3 * joules, 3) for joules in speed["joules_per_frame"])
        line += f", {least} to {most} mJ a frame"
    return line


def _ranged(value: float, ends: Sequence[float], unit: str) -> str:
    low, high = map(digits, ends)
    return f"{digits(value)} {unit} ({low} to {high})"


_COUNTED = ("macs", "cycles", "parameter_bytes", "loaded_bytes", "stored_bytes")


def _table(layers: Sequence[dict[str, Any]]) -> list[str]:
    total = sum(layer["us"] for layer in layers) or 1.0
    rows = [
        [
            str(number),
            shown(layer["type"], MAX_CELL),
            _kernel(layer),
            dims_text(layer["output"]),
            *(f"{layer[key]:,.0f}" if layer[key] else "" for key in _COUNTED),
            f"{layer['us']:.1f}",
            f"{layer['us'] / total:.1%}",
            layer["bound"],
            shown(layer["name"], LONGEST_NAME),
        ]
        for number, layer in enumerate(layers[:MAX_ROWS])
    ]
    sums = [f"{sum(layer[key] for layer in layers):,.0f}" for key in (*_COUNTED, "us")]
    rows.append(["", "total", "", "", *sums, "100.0%", "", ""])
    return columns([list(HEAD), *rows], left={1, 2, 3, 11})


def _kernel(layer: dict[str, Any]) -> str:
    height, width = layer["kernel"]
    stride = max(layer["stride"])
    window = f"{width}x{height}" if height * width > 1 or layer["macs"] else ""
    return window + (f"/{stride}" if stride > 1 else "")
