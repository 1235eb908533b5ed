"""Formatting of the figures of `tutelage predict` as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.results.figure import MEASURED
from tutelage.core.text import LONGEST_NAME, counted, shown
from tutelage.dpu.inspect.listing import MAX_CELL, MAX_ROWS, columns, dims_text
from tutelage.dpu.predict.prediction import BASIS, CODE_BASIS

_BOUNDS = {
    "array": "computing",
    "parameters": "loading parameters",
    "maps": "loading and saving maps",
    "start": "each layer's start",
}

HEAD = (
    "#", "type", "kernel", "output", "MACs", "cycles", "parameters [B]", "loaded [B]", "stored [B]",
    "time [us]", "share", "bound by", "name",
)  # fmt: skip
"""Columns of the table; cycles are those of the array."""


def prediction_lines(facts: dict[str, Any], layers: bool = True) -> list[str]:
    """Return `prediction_facts` as lines for a terminal; with `layers`, including their table."""
    text = [
        f"{facts['model']} on {facts['board']} ({_cores(facts['dpu'])}): {facts['macs']:,} MACs, "
        f"{counted(facts['parameters'], 'parameter')}"
    ]
    if facts["misfit"]:
        text.append(f"{facts['misfit']}; the figures are for the file's array at the board's clock")
    text += ["", *_table(facts["layers"]), ""] if layers else []
    text += [
        *_dpu_lines(facts),
        f"CPU      {digits(facts['cpu_ms'])} ms before and after it",
        f"latency  {_ranged(facts['latency_ms'])}, one thread",
        *(_speed_line(speed, facts["power"]) for speed in facts["threads"]),
        f"Python   {digits(facts['python_fps'])} fps in a Python application, without its "
        "pre-processing",
    ]
    text += _power_lines(facts["power"])
    left = facts["left_to_cpu"]
    if left:
        names = ", ".join(shown(name, MAX_CELL) for name in left[:8]) + (
            ", ..." if len(left) > 8 else ""
        )
        text.append(f"not predicted: {counted(len(left), 'op')} of the CPU: {names}")
    basis = [*BASIS.split("\n"), *(CODE_BASIS.split("\n") if facts["code"] else [])]
    return [shown(line) for line in [*text, *basis]]


def _cores(dpu: dict[str, Any]) -> str:
    cores = "1 core" if dpu["cores"] == 1 else f"{dpu['cores']} cores"
    return f"{cores} at {dpu['clock_mhz']:g} MHz"


def _dpu_lines(facts: dict[str, Any]) -> list[str]:
    """Return the time on one core, and that of the layer model if the former is by the code."""
    code, time = facts["code"], f"DPU      {digits(facts['dpu_ms'])} ms on one core"
    if code is None:
        return [f"{time}: {_shares(facts)}"]
    layers = code["layer_model"]
    return [
        f"{time} ({code['cycles']:,.0f} cycles): {code['source']}",
        f"layers   {digits(layers['dpu_ms'])} ms by the layer model, latency "
        f"{digits(layers['latency_ms'])} ms, {digits(layers['fps'])} fps with as many threads as "
        f"help: {_shares(facts)}",
    ]


def _shares(facts: dict[str, Any]) -> str:
    total = sum(facts["bound_ms"].values()) or 1
    found = sorted(facts["bound_ms"].items(), key=lambda item: -item[1])
    return ", ".join(f"{ms / total:.0%} {_BOUNDS[bound]}" for bound, ms in found if ms)


def _speed_line(speed: dict[str, Any], power: dict[str, Any] | None) -> str:
    count = speed["threads"]
    name = "threads  " + ("as many as help" if count is None else str(count))
    line = f"{name}: {_ranged(speed['fps'])}"
    if power is None:
        return line
    energy, bounds = speed["joules_per_frame"], speed["joule_bounds"]
    if energy["value"] is not None:
        within = ""
        if bounds and speed["watts"]["kind"] != MEASURED:
            within = f"; bounds {_range(bounds, 1e3, 3)}"
        millijoules = f"{digits(1e3 * energy['value'], 3)} mJ per frame"
        line += f", {millijoules} ({_range(energy, 1e3, 3)}{within})"
    return line


def _power_lines(power: dict[str, Any] | None) -> list[str]:
    """Return the power of the whole board and its bounds, with their sources."""
    if power is None:
        return []
    text, bounds = [], power["bounds"]
    if power["watts"]["value"] is not None:
        text.append(f"power    {_ranged(power['watts'])}, the whole board with all cores busy:")
        text.append(f"         {power['source']}")
    if bounds and not power["measured"]:
        text.append(f"bounds   {_range(bounds)} W: {power['bounds_source']}")
    return text


def _ranged(figure: dict[str, Any]) -> str:
    return f"{digits(figure['value'])} {figure['unit']} ({_range(figure)})"


def _range(figure: dict[str, Any], factor: float = 1.0, significant: int = 4) -> str:
    low, high = (digits(factor * figure[end], significant) for end in ("low", "high"))
    return f"{low} to {high}"


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
