"""Where the DPU's time goes in a model, layer by layer, as it is predicted."""

from __future__ import annotations

from pathlib import Path

from tutelage.core.digits import digits, with_range
from tutelage.core.locations import RESULTS
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import LayerTime, Prediction, predict_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.report.content import Cell, Plot, Section, Table, as_svg, new_figure

_COLOURS = {"array": "#4c72b0", "parameters": "#c44e52", "maps": "#dd8452", "start": "#8c8c8c"}
_MEANING = {
    "array": "the array computes", "parameters": "parameters are loaded",
    "maps": "feature maps go to memory and back", "start": "a layer starts",
}  # fmt: skip


def layers_section(model: Path, board: str, results: Path = RESULTS) -> Section:
    """Return the section of a compiled or quantised model.

    Parameters
    ----------
    results : folder in which runs of the board are looked for, whose watts are taken then

    Raises
    ------
    DpuError
        It is no model, or nothing is known of the board.
    """
    found = predict_graph(Graph.deserialize(str(model)), board)
    layers = found.layers()
    low, high = found.fps_range(1)
    text = (
        f"{model}, predicted for one core of the {board.upper()}'s DPU: "
        f"{digits(1e3 * found.job_seconds)} ms on the DPU{_beside(found)}, "
        f"{digits(1e3 * found.cpu_seconds)} ms on the A53 before and behind it; "
        f"{digits(found.fps(1))} frames per second with one thread "
        f"({digits(low)} to {digits(high)} by the errors of networks left out of the fit), "
        f"{digits(found.fps())} with many. "
        f"Not measured.{_energy(found, board_power(board, results, model))}"
    )
    section = Section("layers", "Where the DPU's time goes", [text, *filter(None, [found.misfit])])
    caption = "Predicted time of each layer in its order; the colour is what binds it."
    section.parts.append(Plot("layers", as_svg(_draw(layers)), caption))
    columns = ["#", "type", "kernel", "output", "MACs", "time [us]", "share [%]", "bound by",
               "parameters [B]", "loaded [B]", "stored [B]", "name"]  # fmt: skip
    whole = found.layer_model.job_seconds
    rows = [_row(number, layer, whole) for number, layer in enumerate(layers, start=1)]
    section.parts.append(Table(columns, rows, model))
    return section


def _energy(found: Prediction, power: BoardPower | None) -> str:
    """The energy of a frame, and where the watts are from; "" where nothing is known of them."""
    if power is None or power.watts().value is None:
        return ""
    joules, one = (power.joules_per_frame(found, n).scaled(1e3, "mJ") for n in (None, 1))
    return (
        f" Energy of the whole board: {with_range(*joules.ends)} mJ a frame with many threads, "
        f"{with_range(*one.ends)} mJ with one, {joules.kind}; {with_range(*power.watts().ends)} W: "
        f"{power.source}."
    )


def _beside(found: Prediction) -> str:
    """The layer model's time, where the first is that of the file's own code; "" elsewhere."""
    if found.code_cycles is None:
        return ""
    seconds = found.layer_model.job_seconds
    return f" (simulated from its own code; the layers below add up to {digits(1e3 * seconds)} ms)"


def _row(number: int, layer: LayerTime, whole: float) -> list[Cell]:
    stage, operation = layer.stage, layer.stage.operation
    kernel = "x".join(map(str, operation.kernel))
    stride = max(operation.stride, default=1)
    return [
        number, operation.kind, f"{kernel}/{stride}" if stride > 1 else kernel,
        "x".join(map(str, stage.output)), stage.macs, round(1e6 * layer.seconds, 2),
        round(100 * layer.seconds / whole, 2), layer.bound, stage.parameter_bytes,
        stage.loaded_bytes, stage.stored_bytes, stage.name,
    ]  # fmt: skip


def _draw(layers: list[LayerTime]) -> object:
    figure, axes = new_figure(9.0, 3.2)
    for bound, colour in _COLOURS.items():
        places = [k for k, layer in enumerate(layers, start=1) if layer.bound == bound]
        heights = [1e6 * layer.seconds for layer in layers if layer.bound == bound]
        if places:
            axes.bar(places, heights, color=colour, label=_MEANING[bound])
    axes.set_xlabel("layer")
    axes.set_ylabel("time [us]")
    figure.legend(fontsize=8, loc="outside right upper")
    return figure
