"""Section of a model's predicted cost on a board: figures, engines over time, and layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import DpuError
from tutelage.core.locations import RESULTS
from tutelage.core.results.figure import Figure
from tutelage.dpu.inspect.code import analyse
from tutelage.dpu.inspect.engines_drawing import engines_drawing
from tutelage.dpu.isa.formats import ENGINES
from tutelage.dpu.predict.code import SOURCE
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import LayerTime, Prediction, predict_graph
from tutelage.dpu.predict.prediction import fps_figure, latency_figure
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.report.content import (
    Bar,
    Cell,
    Part,
    Plot,
    Section,
    Table,
    as_svg,
    new_figure,
)

MOST_LAYERS = 25
"""Largest number of layers in the table; of more, the slowest are shown."""

_COLOURS = {"array": "#4c72b0", "parameters": "#c44e52", "maps": "#dd8452", "start": "#8c8c8c"}
_MEANING = {
    "array": "the array computes", "parameters": "parameters are loaded",
    "maps": "feature maps go to memory and back", "start": "a layer starts",
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """A model's prediction for a board.

    Attributes
    ----------
    model : compiled or quantised .xmodel
    graph : graph of the file
    found : prediction
    power : power of the board, None if unknown
    """

    model: Path
    graph: Graph
    found: Prediction
    power: BoardPower | None

    @property
    def board(self) -> str:
        """The board's name as shown."""
        return self.found.board.name.upper()

    @property
    def watts(self) -> Figure:
        """Power with all cores busy, W."""
        return self.power.watts() if self.power else Figure()

    def millijoules(self, threads: int | None = None) -> Figure:
        """Return the energy per frame, mJ; `threads` None is as many as help."""
        if self.power is None:
            return Figure()
        return self.power.joules_per_frame(self.found, threads).scaled(1e3, "mJ")


def predicted_cost(model: Path, board: str, results: Path = RESULTS) -> Cost:
    """Predict a compiled or quantised model.

    Parameters
    ----------
    results : folder that is searched for runs of the board; if there are any, their watts are used

    Raises
    ------
    DpuError
        The file is not a model, or the board is unknown.
    """
    graph = Graph.deserialize(str(model))
    return Cost(model, graph, predict_graph(graph, board), board_power(board, results, model))


def cost_section(cost: Cost) -> Section:
    """Return the section of a model's cost."""
    found = cost.found
    text = (
        f"{cost.model}, predicted for the {cost.board}. Nothing here was measured unless "
        "it says so. Ranges are from the errors of networks that were left out of the fit."
    )
    parts: list[Part] = [text, *filter(None, [found.misfit])]
    rows: list[list[Cell]] = [list(row) for row in _figures(cost)]
    parts.append(Table(["figure", "value", "from", "to", "kind"], rows))
    if cost.power and cost.watts.value is not None:
        parts.append(f"Power: {cost.power.source}.")
    parts += _engines(cost)
    parts += _layers(cost)
    return Section("cost", f"Cost on the {cost.board}", parts)


def _figures(cost: Cost) -> Iterator[tuple[Cell, ...]]:
    found = cost.found
    how = "simulated code" if found.code_cycles is not None else "layer model"
    yield "DPU, one core, one image [ms]", round(1e3 * found.job_seconds, 4), None, None, how
    if found.code_cycles is not None:
        seconds = found.layer_model.job_seconds
        yield "the same by its layers [ms]", round(1e3 * seconds, 4), None, None, "layer model"
    cpu = round(1e3 * found.cpu_seconds, 4)
    yield "CPU before and after it [ms]", cpu, None, None, "layer model"
    yield _figure("latency per image, one thread [ms]", latency_figure(found))
    yield _figure("speed, one thread [fps]", fps_figure(found, 1))
    yield _figure("speed, as many threads as help [fps]", fps_figure(found))
    if cost.watts.value is not None:
        yield _figure("power of the board, all cores busy [W]", cost.watts)
        yield _figure("energy per frame, one thread [mJ]", cost.millijoules(1))
        yield _figure("energy per frame, many threads [mJ]", cost.millijoules())
    left = found.left_to_cpu
    if left:
        yield "ops on the CPU, not predicted", len(left), None, None, "not included"


def _figure(name: str, figure: Figure) -> tuple[Cell, ...]:
    return (name, *figure.ends, figure.kind)


# -- the four engines -----------------------------------------------------------------------------


def _engines(cost: Cost) -> list[Part]:
    """Return the picture of the engines over time, or a sentence if there is no code."""
    if cost.found.code_cycles is None:
        return ["There is no picture of the DPU's engines: the file has no DPU code, which "
                "`tutelage compile` makes."]  # fmt: skip
    try:
        code = analyse(cost.graph)
    except DpuError as error:
        return [f"There is no picture of the DPU's engines: {error}."]
    busy = {engine: sum(part.timeline.busy[engine] for part in code) for engine in ENGINES}
    cycles = sum(part.timeline.cycles for part in code) or 1.0
    shares = ", ".join(f"{engine.name} {busy[engine] / cycles:.0%}" for engine in ENGINES)
    text = (
        f"An image takes {cycles:,.0f} cycles of one DPU core, {SOURCE}. Its engines are busy: "
        f"{shares}."
    )
    caption = (
        "The four engines over the time of one image, in cycles: solid where an engine works, pale "
        "where it waits for the engine of that colour. The bars at the top are the layers."
    )
    return [text, Plot("engines", engines_drawing(code), caption)]


# -- layers ---------------------------------------------------------------------------------------


def _layers(cost: Cost) -> list[Part]:
    layers, whole = cost.found.layers(), cost.found.layer_model.job_seconds
    caption = "Predicted time of each layer, in order; the colour shows what limits it."
    plot = Plot("layers", as_svg(_draw(layers)), caption)
    columns = ["layer", "type", "kernel", "output", "MACs", "time [us]", "share [%]", "bound by",
               "name"]  # fmt: skip
    order = sorted(range(len(layers)), key=lambda k: -layers[k].seconds)[:MOST_LAYERS]
    rows = [_row(number + 1, layers[number], whole) for number in sorted(order)]
    more = ""
    if len(layers) > len(rows):
        more = (f"The {MOST_LAYERS} slowest of {len(layers):,} layers; "
                "`tutelage predict` lists all of them.")  # fmt: skip
    return [plot, Table(columns, rows, cost.model, more)]


def _row(number: int, layer: LayerTime, whole: float) -> list[Cell]:
    stage, operation = layer.stage, layer.stage.operation
    kernel = "x".join(map(str, operation.kernel))
    stride = max(operation.stride, default=1)
    share = layer.seconds / whole if whole else 0.0
    return [
        number, operation.kind, f"{kernel}/{stride}" if stride > 1 else kernel,
        "x".join(map(str, stage.output)), stage.macs, round(1e6 * layer.seconds, 2),
        Bar(round(100 * share, 2), min(1.0, share)), layer.bound, stage.name,
    ]  # fmt: skip


def _draw(layers: list[LayerTime]) -> object:
    figure, axes = new_figure(9.0, 3.0)
    for bound, colour in _COLOURS.items():
        places = [k for k, layer in enumerate(layers, start=1) if layer.bound == bound]
        heights = [1e6 * layer.seconds for layer in layers if layer.bound == bound]
        if places:
            axes.bar(places, heights, color=colour, label=_MEANING[bound])
    axes.set_xlabel("layer")
    axes.set_ylabel("time [us]")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(fontsize=8, loc="outside upper center", ncols=len(_COLOURS))
    return figure
