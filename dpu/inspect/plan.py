"""Decisions of the board compiler, layer by layer, for `tutelage compile --explain`.

A row shows for a layer: the sources of its maps, the location of its result, its tiling, its
traffic through the DDR, and its simulated time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.text import LONGEST_NAME, shown
from tutelage.dpu.compiler.board.layout import ChipMap
from tutelage.dpu.compiler.board.memory import CONSTANTS
from tutelage.dpu.compiler.board.network import Node
from tutelage.dpu.compiler.board.part import Part
from tutelage.dpu.compiler.board.stages import Operand, Plan, Strip
from tutelage.dpu.inspect.listing import columns
from tutelage.dpu.isa.timing import array_cycles, bytes_moved

HEAD = (
    "stage", "reads", "result", "tile", "strips", "parameters [B]", "maps [B]", "saved [B]",
    "array", "misc", "begin", "end", "layer",
)  # fmt: skip
"""Columns of the table; `array` to `end` are cycles."""


@dataclass
class PlannedLayer:
    """A compiled layer.

    Attributes
    ----------
    stage : number of the stage, whose layers are computed alternately
    reads : for each operand "chip", "ring" (rows of the previous layer) or "DDR"
    result : "chip", "ring" or "DDR", or "chip, DDR" if it is in both
    tile, strips : rows computed at a time, number of strips of columns
    parameter_bytes, map_bytes, saved_bytes : bytes through the DDR
    array_cycles, misc_cycles : cycles in which the array, and MISC, compute
    begin, end : simulated cycles, from the first load of a map or computation to the end
    """

    name: str
    stage: int
    reads: list[str]
    result: str
    tile: int
    strips: int
    parameter_bytes: int = 0
    map_bytes: int = 0
    saved_bytes: int = 0
    array_cycles: int = 0
    misc_cycles: int = 0
    begin: float = 0.0
    end: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Return the attributes for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Held:
    """Bank rows that store a map, or rows of one, for some time.

    Attributes
    ----------
    name : name of the layer that computes the values
    chip : the location in the banks
    ring : whether rows replace one another
    begin, end : simulated cycles
    """

    name: str
    chip: ChipMap
    ring: bool
    begin: float
    end: float


def planned_layers(part: Part) -> list[PlannedLayer]:
    """Return the layers of a compiled subgraph in order."""
    found: list[PlannedLayer] = []
    for number, stage in enumerate(part.plan.stages):
        for node, strip in zip(stage.nodes, stage.strips[0], strict=True):
            reads = [_source(operand) for operand in strip.operands]
            result = _result(part.plan, node, strip)
            found.append(
                PlannedLayer(node.name, number, reads, result, strip.tile, len(stage.strips))
            )
    _add_code(part, found)
    return found


def _source(operand: Operand) -> str:
    if operand.ring:
        return "ring"
    return "chip" if operand.feed is None else "DDR"


def _result(plan: Plan, node: Node, strip: Strip) -> str:
    store = node.outputs[0].store
    if store in plan.rings:
        return "ring"
    where = ["chip"] if strip.result is not None and strip.result.stays else []
    if strip.result is None or strip.result.saves:
        where.append("DDR")
    return ", ".join(where)


def _add_code(part: Part, layers: list[PlannedLayer]) -> None:
    """Add the bytes, cycles and times of the instructions of each layer."""
    inits: dict[str, Any] = {}
    seen: set[int] = set()
    for place, (i, number) in enumerate(zip(part.code, part.nodes, strict=True)):
        layer, begin, end = layers[number], part.timeline.begins[place], part.timeline.ends[place]
        if i.name.endswith("INIT"):
            inits[i.name] = i
        if i.name == "END" or i.name.endswith("INIT"):
            continue
        if i.name == "LOAD" and i.reg_id == CONSTANTS:
            layer.parameter_bytes += bytes_moved(i)
            continue
        layer.begin = begin if number not in seen else min(layer.begin, begin)
        layer.end = max(layer.end, end)
        seen.add(number)
        if i.name == "LOAD":
            layer.map_bytes += bytes_moved(i)
        elif i.name == "SAVE":
            layer.saved_bytes += bytes_moved(i)
        elif i.name == "CONV":
            layer.array_cycles += array_cycles(i, inits)
        else:
            layer.misc_cycles += array_cycles(i, inits)


def held_rows(part: Part) -> list[Held]:
    """Return the contents of the bank rows over time."""
    layers = planned_layers(part)
    found: dict[tuple[str, ChipMap, bool], Held] = {}
    number = 0
    for stage in part.plan.stages:
        for place, node in enumerate(stage.nodes):
            layer = layers[number]
            for strips in stage.strips:
                _hold(part.plan, node, strips[place], layer, found)
            number += 1
    return list(found.values())


def _hold(
    plan: Plan, node: Node, strip: Strip, layer: PlannedLayer,
    found: dict[tuple[str, ChipMap, bool], Held],
) -> None:  # fmt: skip
    """Record the maps on the chip that a layer reads and writes."""
    chips = [
        (operand.feed.view.store.name if operand.feed else view.store.name, operand.chip,
         operand.feed is not None or operand.ring)
        for operand, view in zip(strip.operands, node.inputs, strict=False)
    ]  # fmt: skip
    if strip.result is not None:
        store = node.outputs[0].store
        chips.append((store.name, strip.result.chip, not strip.result.stays))
    for key in chips:
        known = found.get(key)
        begin, end = layer.begin, layer.end
        if known is not None:
            begin, end = min(begin, known.begin), max(end, known.end)
        found[key] = Held(*key, begin, end)


def plan_lines(part: Part) -> list[str]:
    """Return a table with a row per layer, and the totals."""
    layers = planned_layers(part)
    kept = sum("DDR" not in layer.result for layer in layers)
    moved = sum(layer.map_bytes + layer.saved_bytes for layer in layers)
    return [
        *columns([list(HEAD), *map(_row, layers)], left={1, 2}),
        f"{kept} of {len(layers)} results never reach the DDR; {moved:,} bytes of maps go through "
        f"it; {part.timeline.cycles:,.0f} simulated cycles",
    ]


def _row(layer: PlannedLayer) -> list[str]:
    numbers = (
        layer.parameter_bytes, layer.map_bytes, layer.saved_bytes, layer.array_cycles,
        layer.misc_cycles,
    )  # fmt: skip
    return [
        str(layer.stage),
        " ".join(layer.reads),
        layer.result,
        str(layer.tile),
        str(layer.strips),
        *(f"{number:,}" if number else "" for number in numbers),
        f"{layer.begin:,.0f}",
        f"{layer.end:,.0f}",
        shown(layer.name, LONGEST_NAME),
    ]


def plan_facts(part: Part) -> Sequence[dict[str, Any]]:
    """Return the compiled layers for JSON."""
    return [layer.facts() for layer in planned_layers(part)]
