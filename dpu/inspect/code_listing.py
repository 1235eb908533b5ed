"""A file's DPU code as lines for a terminal: assembly, summary by layer, tensor locations."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.text import LONGEST_NAME, counted, shown
from tutelage.dpu.inspect.code import LayerCode, PartCode, TensorPlace
from tutelage.dpu.inspect.listing import MAX_ROWS, columns
from tutelage.dpu.isa.assembly import disassemble
from tutelage.dpu.isa.formats import ENGINES

COSTS = (
    "cycles are simulated (dpu/isa/timing.py), not measured: the order is exact, the array's\n"
    "cycles are the compiler's own, transfer costs are fitted to published frame rates."
)
"""Explanation of the cycles."""

SUMMARY_HEAD = (
    "#", "instructions", "parameters [B]", "maps [B]", "saved [B]", "array", "misc", "begin",
    "end", "waits most", "layer",
)  # fmt: skip
"""Columns of the summary; `array` to `end` are cycles."""

PLACES_HEAD = ("kind", "DDR bytes", "in DDR", "on chip", "cycles on chip", "tensor")
"""Columns of the tensors' locations, with ranges of instructions and of cycles."""


def assembly_lines(part: PartCode, places: Sequence[int]) -> list[str]:
    """Return a subgraph's title and the instructions at `places`, each with a comment."""
    code = [part.code[place] for place in places]
    comments = [shown(part.comment(place), 3 * LONGEST_NAME) for place in places]
    return [f"; {shown(part.title, 2 * LONGEST_NAME)}", *disassemble(code, comments)]


def summary_lines(part: PartCode, layers: Sequence[LayerCode]) -> list[str]:
    """Return a table with a row per layer, and the subgraph's totals."""
    rows = [_summary_row(layer) for layer in layers[:MAX_ROWS]]
    busy = part.timeline.busy
    shares = ", ".join(
        f"{engine.name} {busy[engine] / (part.timeline.cycles or 1):.0%}" for engine in ENGINES
    )
    left_out = len(layers) - len(rows)
    return [
        shown(part.title, 2 * LONGEST_NAME),
        *columns([list(SUMMARY_HEAD), *rows], left={1, 9}),
        *([f"... and {counted(left_out, 'more layer')} (--json has them all)"] if left_out else []),
        f"{part.timeline.cycles:,.0f} cycles; busy: {shares}",
        *COSTS.split("\n"),
    ]


def _summary_row(layer: LayerCode) -> list[str]:
    counts = " ".join(f"{name} {count}" for name, count in layer.instructions.items())
    sums = (layer.parameter_bytes, layer.map_bytes, layer.saved_bytes, layer.array_cycles,
            layer.misc_cycles)  # fmt: skip
    wait = layer.main_wait
    return [
        str(layer.first),
        counts,
        *(f"{number:,}" if number else "" for number in sums),
        f"{layer.begin:,.0f}",
        f"{layer.end:,.0f}",
        f"{wait[0]} for {wait[1]} {wait[2]:,.0f}" if wait else "",
        shown(layer.name, LONGEST_NAME) or "(end)",
    ]


def place_lines(part: PartCode) -> list[str]:
    """Return a table of the locations of a subgraph's tensors over time."""
    places = part.places
    rows = [_place_row(part, place) for place in places[:MAX_ROWS]]
    left_out = len(places) - len(rows)
    return [
        f"{shown(part.title, 2 * LONGEST_NAME)}, {part.timeline.cycles:,.0f} cycles",
        *columns([list(PLACES_HEAD), *rows], left={0, 1}),
        *(
            [f"... and {counted(left_out, 'more tensor')} (--json has them all)"]
            if left_out
            else []
        ),
    ]


def _place_row(part: PartCode, place: TensorPlace) -> list[str]:
    cycles = part.cycles_of(place.chip)
    return [
        place.kind,
        "" if place.bytes is None else "REG_{} {} to {}".format(*place.bytes),
        _span(place.ddr),
        _span(place.chip),
        "" if cycles is None else f"{cycles[0]:,.0f} to {cycles[1]:,.0f}",
        shown(place.name, LONGEST_NAME),
    ]


def _span(span: tuple[int, int] | None) -> str:
    return "" if span is None else f"{span[0]} to {span[1]}"
