"""SVG drawing of a DPU's four engines over time: when each works, and which one it waits for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.inspect.code import LayerCode, PartCode
from tutelage.dpu.inspect.draw import escaped
from tutelage.dpu.isa.formats import ENGINES, Engine

BINS = 900
"""Number of columns; each shows fractions of its time."""

COLOURS = {
    Engine.LOAD: "#5b86b3",
    Engine.SAVE: "#95608c",
    Engine.CONV: "#c2410c",
    Engine.MISC: "#6b9a57",
}
"""Colours of the engines: solid while it works, pale while another one waits for it."""

_LEFT, _TOP, _ROW, _GAP, _BAND = 60, 46, 60, 10, 14
_STYLE = 'font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif'
_PALE = 0.35


def engines_svg(parts: Sequence[PartCode]) -> str:
    """Return the pictures of all subgraphs, one below the other, as the text of an SVG file."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{engines_drawing(parts)}\n'


def engines_drawing(parts: Sequence[PartCode]) -> str:
    """Return the <svg> element of `engines_svg`."""
    width, height = _LEFT + BINS + 20, _height() * len(parts)
    body = "".join(
        f'<g transform="translate(0 {number * _height()})">{_picture(part)}</g>'
        for number, part in enumerate(parts)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="Engines of the DPU over time" '
        f'style="{escaped(_STYLE)}">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>'
    )


def _height() -> int:
    return _TOP + _BAND + len(ENGINES) * (_ROW + _GAP) + 18


def _picture(part: PartCode) -> str:
    cycles = part.timeline.cycles or 1.0
    edges = np.linspace(0, cycles, BINS + 1)
    rows = "".join(_engine_row(part, engine, edges) for engine in ENGINES)
    bands = "".join(_band(n, layer, cycles) for n, layer in enumerate(part.layers) if layer.name)
    title = f"{part.title}, {cycles:,.0f} simulated cycles"
    return f"{_text(8, 16, title)}{_legend()}{bands}{rows}{_axis(cycles)}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text, 200)}</text>'


def _legend() -> str:
    """Return the legend: pale means waiting for the engine of that colour."""
    found, x = [], float(_LEFT)
    for engine in ENGINES:
        for opacity, text in ((1.0, f"{engine.name} works"), (_PALE, f"waits for {engine.name}")):
            found.append(
                f'<rect x="{x}" y="24" width="10" height="10" fill="{COLOURS[engine]}" '
                f'fill-opacity="{opacity}"/>{_text(x + 14, 33, text)}'
            )
            x += 84 if opacity == 1.0 else 118
    return "".join(found)


def _band(number: int, layer: LayerCode, cycles: float) -> str:
    """Return a layer's time as a bar, alternating in row and shade so that neighbours differ."""
    x = _LEFT + BINS * layer.begin / cycles
    width = max(BINS * (layer.end - layer.begin) / cycles, 0.5)
    shade = "#8c8c8c" if number % 2 else "#c8c8c8"
    y = _TOP + (number % 2) * _BAND / 2 - 4
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAND / 2 - 1}" '
        f'fill="{shade}"><title>{escaped(layer.name)}: {layer.begin:,.0f} to {layer.end:,.0f}'
        "</title></rect>"
    )


def _engine_row(part: PartCode, engine: Engine, edges: Array) -> str:
    """Return an engine's fraction of work in each column, and above it those of its waits."""
    timeline = part.timeline
    engines = np.array([int(i.engine) for i in part.code])
    own = engines == int(engine)
    y = _TOP + _BAND + ENGINES.index(engine) * (_ROW + _GAP)
    begins, waits = timeline.begins[own], timeline.waits[own]
    busy = _shares(begins, timeline.ends[own], edges)
    text = [_text(_LEFT - 8, y + _ROW / 2 + 4, str(engine.name), "end")]
    text.append(_area(np.zeros(BINS), busy, y, COLOURS[engine], 1.0))
    givers = np.where(timeline.waited_for[own] >= 0, engines[timeline.waited_for[own]], 0)
    level = busy
    for other in ENGINES:
        found = givers == int(other)
        share = _shares(begins[found] - waits[found], begins[found], edges)
        above = np.minimum(1.0, level + share)
        text.append(_area(level, above, y, COLOURS[other], _PALE))
        level = above
    text.append(
        f'<rect x="{_LEFT}" y="{y}" width="{BINS}" height="{_ROW}" fill="none" stroke="#d0d0d0"/>'
    )
    return "".join(text)


def _shares(starts: Array, ends: Array, edges: Array) -> Array:
    """Return the fraction of each column covered by the intervals, at most 1, float64 [BINS]."""
    covered = _elapsed(starts, edges) - _elapsed(ends, edges)
    return np.asarray(np.minimum(1.0, np.diff(covered) / np.diff(edges)))


def _elapsed(times: Array, edges: Array) -> Array:
    """Return at each edge the sum of the durations since all earlier times."""
    order = np.sort(times)
    sums = np.concatenate([[0.0], np.cumsum(order)])
    count = np.searchsorted(order, edges)
    return np.asarray(count * edges - sums[count])


def _area(low: Array, high: Array, y: float, colour: str, opacity: float) -> str:
    """Return the columns between two levels as one path."""
    pieces = [
        f"M{_LEFT + n} {y + _ROW * (1 - high[n]):.1f}h1V{y + _ROW * (1 - low[n]):.1f}h-1z"
        for n in np.nonzero(high - low > 0.002)[0].tolist()
    ]
    if not pieces:
        return ""
    return f'<path d="{"".join(pieces)}" fill="{colour}" fill-opacity="{opacity}"/>'


def _axis(cycles: float) -> str:
    y = _TOP + _BAND + len(ENGINES) * (_ROW + _GAP) + 8
    ticks = [(k, "start" if k == 0 else "end" if k == 5 else "middle") for k in range(6)]
    return "".join(
        _text(_LEFT + BINS * k / 5, y, f"{cycles * k / 5:,.0f}", anchor) for k, anchor in ticks
    )
