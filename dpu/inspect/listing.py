"""Formatting of the facts of `inspect` as lines for a terminal.

Names come from untrusted files: control characters are escaped and names are truncated, so that
the width of lines and columns is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tutelage.core.text import LONGEST_NAME, counted, shown

MAX_CELL = 40
"""Most characters of a table cell."""

MAX_ROWS, MAX_PARTS = 5000, 100
"""Most rows of a table, and most inputs, outputs and subgraphs, that are listed; JSON has all."""

NOTE = (
    "array cycles: in which one core computes; load cycles: in which parameters are loaded from "
    "memory;\narray share: the larger of the two, relative to the total. All are lower bounds "
    "derived from\nthe core's shape, not measurements; dpu/predict/cycles.py marks the rules that "
    "are assumptions."
)
"""Explanation of the table's cycles, in lines that fit a terminal."""


def lines(facts: dict[str, Any], ops: bool = False) -> list[str]:
    """Return all facts about the file as lines; with `ops` including every op."""
    text = [*head_lines(facts), *subgraph_lines(facts), "", *layer_lines(facts["layers"])]
    if "images" in facts:
        text += ["", *value_lines(facts["layers"], facts["images"])]
    if ops:
        text += ["", *_op_lines(facts["ops"])]
    return [shown(line) for line in text]


def head_lines(facts: dict[str, Any]) -> list[str]:
    """Return the summary of the file, its inputs and outputs, and the ops that need a plugin."""
    name = shown(facts["name"], LONGEST_NAME)
    text = [
        f"{facts['file']}: {name}, {facts['kind']}, {facts['bytes']:,} bytes, "
        f"{counted(len(facts['ops']), 'op')}, {facts['parameters']:,} constant values"
    ]
    text += _ends(facts)
    text += [f"note: {shown(note, 2 * LONGEST_NAME)}" for note in facts["notes"]]
    if facts["not_built_in"]:
        names = [shown(name, MAX_CELL) for name in facts["not_built_in"][:MAX_CELL]]
        text.append(f"not built in, need --plugin: {', '.join(names)}")
    left = list(facts["left_to_cpu"].items())
    text += [
        f"left to the CPU: {shown(op, MAX_CELL)}: {shown(why, MAX_CELL)}"
        for op, why in left[:MAX_PARTS]
    ]
    return text + _left_out(len(left), MAX_PARTS, "ops of the CPU")


def subgraph_lines(facts: dict[str, Any]) -> list[str]:
    """Return each subgraph with its inputs and outputs, work and memory."""
    parts = facts["subgraphs"]
    first = enumerate(parts[:MAX_PARTS])
    text = [line for number, part in first for line in ("", *_subgraph_lines(number, part))]
    return text + _left_out(len(parts), MAX_PARTS, "subgraphs")


def _ends(holder: dict[str, Any]) -> list[str]:
    """Return the inputs and outputs of a graph or subgraph."""
    text = []
    for what in ("inputs", "outputs"):
        tensors = holder[what]
        text += [f"{what[:-1]:8} {_tensor_text(tensor)}" for tensor in tensors[:MAX_PARTS]]
        text += _left_out(len(tensors), MAX_PARTS, what)
    return text


def _left_out(count: int, listed: int, what: str) -> list[str]:
    """Return a line about omitted items, if any."""
    more = count - listed
    return [f"... and {more:,} more {what} (--json has them all)"] if more > 0 else []


def dims_text(dims: Sequence[int]) -> str:
    """Return a shape in the form 1x28x28x1."""
    return shown("x".join(map(str, dims[:MAX_CELL])) or "scalar", MAX_CELL)


def _tensor_text(tensor: dict[str, Any]) -> str:
    point = "" if tensor["fix_point"] is None else f", fix point {tensor['fix_point']}"
    name = shown(tensor["name"], LONGEST_NAME)
    return f"{name}  {dims_text(tensor['dims'])} {tensor['dtype']}{point}"


def _subgraph_lines(number: int, part: dict[str, Any]) -> list[str]:
    head = f"subgraph {number}: {part['device']}, {counted(part['ops'], 'op')}{_target_text(part)}"
    text = [shown(head, LONGEST_NAME), f"  {shown(part['name'], LONGEST_NAME)}"]
    text += [f"  {line}" for line in _ends(part)]
    if part["workload"]:
        line, on_array = f"  workload {part['workload']:,} operations", part["workload_on_arch"]
        if on_array:
            line += f", {on_array:,} on the array ({part['workload'] / on_array:.0%} used)"
        text.append(line)
    if part["memory"]:
        held = ", ".join(f"{m['use'] or m['register']} {m['bytes']:,}" for m in part["memory"])
        text.append(f"  memory   {held}, instructions {part['instruction_bytes']:,} bytes")
    return text


def _target_text(part: dict[str, Any]) -> str:
    """Return the target DPU: the name in the file, unless the fingerprint contradicts it."""
    name, dpu = part["dpu_name"] or "", part["dpu"] or ""
    if not (name or dpu):
        return ""
    made = name if name.startswith(dpu) else f"{dpu} (its name in the file, {name!r}, is wrong)"
    return f", for {made} {part['fingerprint'] or ''}".rstrip()


LAYER_HEAD = (
    "#", "type", "kernel", "output", "fix in", "w", "b", "out", "shift", "b shift",
    "MACs", "parameters", "array cycles", "load cycles", "array share", "name",
)  # fmt: skip
"""Columns of the layer table."""


def layer_rows(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the layers' cells under `LAYER_HEAD`, without inputs, and a row of totals."""
    rows = [
        [str(number), *_layer_cells(layer)]
        for number, layer in enumerate(layers[:MAX_ROWS])
        if layer["type"] != "input"
    ]
    sums = ("macs", "parameters", "array_cycles", "memory_cycles")
    totals = [f"{math.ceil(sum(layer[key] or 0 for layer in layers)):,}" for key in sums]
    totals = [*totals, "100.0%"] if has_cycles(layers) else [*totals[:2], *"???"]
    return [*rows, ["", "total", *[""] * 8, *totals, ""]]


def has_cycles(layers: Sequence[dict[str, Any]]) -> bool:
    """Return whether the cycles of all layers on the DPU are known."""
    known = (layer["cycles"] is not None for layer in layers if layer["device"] == "DPU")
    return bool(layers) and all(known)


def type_text(layer: dict[str, Any]) -> str:
    """Return the layer's type with its nonlinearity, e.g. "conv2d+relu"."""
    nonlinear = layer["nonlinear"].lower()
    own = nonlinear in ("none", layer["type"].replace("-", ""))
    return shown(layer["type"] if own else f"{layer['type']}+{nonlinear}", MAX_CELL)


def kernel_text(layer: dict[str, Any]) -> str:
    """Return width x height of the window and the stride, e.g. "3x3/2"."""
    if not layer["kernel"]:
        return ""
    stride = layer["stride"]
    step = "" if stride == [1, 1] else f"/{stride[0]}" if len(set(stride)) == 1 else (
        f"/{dims_text(stride)}"
    )  # fmt: skip
    return dims_text(layer["kernel"]) + step


def _layer_cells(layer: dict[str, Any]) -> list[str]:
    inner = list(dict.fromkeys(layer["fix_in"]))
    # Cycles are unknown for DPUs other than the emulated one.
    share, place = layer["array_share"], {"DPU": "?"}.get(layer["device"], layer["device"] or "CPU")
    place = shown(place, MAX_CELL)
    cycles = [layer["array_cycles"], layer["memory_cycles"]]
    points = [layer[key] for key in ("fix_weights", "fix_bias", "fix_out", "shift", "bias_shift")]
    return [
        type_text(layer),
        kernel_text(layer),
        dims_text(layer["dims"]),
        shown(
            ",".join("-" if point is None else str(point) for point in inner[:MAX_CELL]), MAX_CELL
        ),
        *("" if point is None else str(point) for point in points),
        f"{layer['macs']:,}" if layer["macs"] else "",
        f"{layer['parameters']:,}" if layer["parameters"] else "",
        *(place if count is None else f"{math.ceil(count):,}" for count in cycles),
        "" if share is None else f"{share:.1%}",
        shown(layer["name"], LONGEST_NAME),
    ]


def layer_lines(layers: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table of the layers with totals and, if it has cycles, their explanation."""
    table = columns([list(LAYER_HEAD), *layer_rows(layers)], left={1, 2, 3})
    note = NOTE.split("\n") if has_cycles(layers) else []
    return [*table, *_left_out(len(layers), MAX_ROWS, "layers"), *note]


VALUE_HEAD = (
    "#", "", "type", "fix", "saturated", "zeros", "min", "max", "bits unused", "dead channels",
    "weights' zeros", "weights' bits unused", "name",
)  # fmt: skip
"""Columns of the table of values; the second marks the rows with advice."""


def value_rows(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells under `VALUE_HEAD` of all layers with int8 values."""
    return [
        [str(number), *_value_cells(layer)]
        for number, layer in enumerate(layers[:MAX_ROWS])
        if layer["values"] or layer["weight_values"]
    ]


def _value_cells(layer: dict[str, Any]) -> list[str]:
    values, weights = layer["values"], layer["weight_values"]
    cells = [""] * 6
    if values:
        shares = [f"{values[key]:.2%}" for key in ("saturated", "zeros")]
        counts = [str(values[key]) for key in ("min", "max", "dead_bits")]
        cells = [*shares, *counts, f"{values['dead_channels']}/{values['channels']}"]
    cells += [f"{weights['zeros']:.2%}", str(weights["dead_bits"])] if weights else ["", ""]
    point = "" if layer["fix_out"] is None else str(layer["fix_out"])
    mark = "!" if layer["advice"] else ""
    return [mark, type_text(layer), point, *cells, shown(layer["name"], LONGEST_NAME)]


def advice_lines(layers: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per piece of advice."""
    return [
        f"! #{number} {shown(layer['name'], LONGEST_NAME)}: {text}"
        for number, layer in enumerate(layers)
        for text in layer["advice"]
    ]


def value_lines(layers: Sequence[dict[str, Any]], images: int) -> list[str]:
    """Return the table of values on sample inputs, and advice for the marked rows."""
    table = columns([list(VALUE_HEAD), *value_rows(layers)], left={1, 2})
    return [f"int8 values on {counted(images, 'image')}", *table, *advice_lines(layers)]


def columns(rows: list[list[str]], left: set[int]) -> list[str]:
    """Return rows of cells as lines: columns in `left` left-aligned, others right-aligned."""
    last = len(rows[0]) - 1
    widths = [max(len(row[i]) for row in rows) for i in range(last)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width) if i < last else cell
            for i, (cell, width) in enumerate(zip(row, [*widths, 0], strict=True))
        ).rstrip()
        for row in rows
    ]


_OP_COLUMNS = ("type", "device", "dims", "fix_point", "shift", "workload", "name")


def _op_lines(ops: list[dict[str, Any]]) -> list[str]:
    rows = [["type", "device", "dims", "fix", "shift", "workload", "name"]]
    for op in ops[:MAX_ROWS]:
        cells = {**op, "dims": dims_text(op["dims"]), "name": shown(op["name"], LONGEST_NAME)}
        texts = ["" if cells[key] is None else str(cells[key]) for key in _OP_COLUMNS]
        rows.append([*(shown(text, MAX_CELL) for text in texts[:-1]), texts[-1]])
    return [*columns(rows, left={0, 1, 2}), *_left_out(len(ops), MAX_ROWS, "ops")]
