"""SVG drawing of the graph of a model's layers, without Graphviz.

Names come from untrusted files: every text is bounded, printable and escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.core.text import counted, html_text, shown
from tutelage.dpu.inspect import listing
from tutelage.dpu.inspect.layers import INPUT
from tutelage.dpu.inspect.layout import BOX_HEIGHT, BOX_WIDTH, Layout, Line, Point, place
from tutelage.dpu.ops.registry import op_type

MAX_NODES = 2000
"""Most layers that are drawn; a DenseNet-264 has about 400."""

MAX_LINES = 20_000
"""Most connections that are drawn; a DenseNet-264 whose concats repeat all earlier layers has about
3,600."""

SHARES = "% of the lower bound of cycles, not measured"
"""Explanation of the figures in the boxes."""

_LABEL, _BOLD = 32, 29
"""Characters that fit into a box, in small and in bold type."""

STYLE = """
.graph { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; background: #fff; }
.graph text { fill: #1a1a1a; }
.graph .what { font-weight: 600; font-size: 11px; }
.graph .name { fill: #555; font-size: 10px; }
.graph .note { fill: #555; font-size: 10px; }
.graph .lines path { fill: none; stroke: #7d8590; stroke-width: 1.2; stroke-linejoin: round; }
.graph marker path { fill: #7d8590; }
.graph rect { fill: #f4f4f4; stroke: #8c8c8c; }
.graph .conv rect { fill: #dfebf7; stroke: #5b86b3; }
.graph .pool rect { fill: #e4f1de; stroke: #6b9a57; }
.graph .join rect { fill: #fdf1d6; stroke: #b8923a; }
.graph .cpu rect { fill: #f5e6f2; stroke: #95608c; stroke-dasharray: 4 2; }
.graph .wrong rect { stroke: #c00; stroke-width: 2.5; }
"""
"""Style sheet, for the picture alone and in a page."""


def svg(facts: dict[str, Any]) -> str:
    """Return the graph of the layers in `facts` (see `describe`) as a standalone SVG.

    Raises
    ------
    DpuError
        There are too many layers or connections for a drawing.
    """
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing(facts, STYLE)}\n'


def escaped(text: str, limit: int = 400) -> str:
    """Return escaped text for a name or line of a drawing, with a lower limit than elsewhere."""
    return html_text(text, limit)


def _sources(layers: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return the indices of the layers that each layer reads."""
    if len(layers) > MAX_NODES:
        raise DpuError(f"{len(layers):,} layers; a drawing shows at most {MAX_NODES:,}; use --json")
    number = {layer["name"]: index for index, layer in enumerate(layers)}
    sources = [list(dict.fromkeys(number[n] for n in layer["inputs"])) for layer in layers]
    count = sum(map(len, sources))
    if count > MAX_LINES:
        raise DpuError(f"{count:,} connections; a drawing shows at most {MAX_LINES:,}; use --json")
    return sources


def drawing(facts: dict[str, Any], style: str = "") -> str:
    """Return the <svg> element, including a style sheet if given."""
    layers = facts["layers"]
    layout = place(_sources(layers))
    width, height = round(layout.width), round(layout.height)
    title = escaped(f"{facts['name']}: {counted(len(layers), 'layer')}")
    lines = "\n".join(_line(line) for line in _in_front(layout))
    nodes = "\n".join(_node(n, layer, layout.corners[n]) for n, layer in enumerate(layers))
    sheet = f"<style>{style}</style>" if style else ""
    note = f'<text class="note" x="8" y="{height - 6}">{escaped(SHARES)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">\n<title>{title}</title>{sheet}\n{note}'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        f'markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker></defs>\n'
        f'<g class="lines">\n{lines}\n</g>\n{nodes}\n</svg>'
    )


def _in_front(layout: Layout) -> list[Line]:
    """Return long lines first, so that short ones are drawn on top."""
    return sorted(layout.lines, key=lambda line: -len(line.points))


def _line(line: Line) -> str:
    tip = ' marker-end="url(#tip)"' if line.arrow else ""
    return f'<path data-from="{line.source}" data-to="{line.target}" d="{_path(line)}"{tip}/>'


def _path(line: Line) -> str:
    if line.curved:
        (x0, y0), (x1, y1) = line.points
        half = (y0 + y1) / 2
        return f"M{_xy((x0, y0))}C{_xy((x0, half))} {_xy((x1, half))} {_xy((x1, y1))}"
    return "M" + "L".join(map(_xy, line.points))


def _xy(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _family(layer: dict[str, Any]) -> str:
    if layer["cycles"] is None and layer["type"] != INPUT and layer["device"] != "DPU":
        return "cpu"
    return op_type(layer["type"]).family


def _node(number: int, layer: dict[str, Any], corner: Point) -> str:
    """Return a box with three lines: type, shape and name."""
    x, y = corner
    wrong = " wrong" if layer.get("advice") else ""
    kernel = f" {listing.kernel_text(layer)}".rstrip()
    what = shown(listing.type_text(layer), _BOLD - len(kernel)) + kernel
    point = "" if layer["fix_out"] is None else f" · fix {layer['fix_out']}"
    share = "" if not layer["array_share"] else f" · {layer['array_share']:.1%}"
    shape = f"{listing.dims_text(layer['dims'])}{point}{share}"
    name = f"#{number} {layer['name']}"
    if len(name) > _LABEL:  # names of layers differ at their ends
        name = f"#{number} …{name[len(str(number)) + 3 - _LABEL :]}"
    texts = zip((18, 32, 45), ("what", "shape", "name"), (what, shape, name), strict=True)
    lines = "".join(
        f'<text class="{kind}" x="{x + 8:.1f}" y="{y + dy:.1f}">{escaped(text, _LABEL + 2)}</text>'
        for dy, kind, text in texts
    )
    return (
        f'<g class="node {_family(layer)}{wrong}" data-layer="{number}" tabindex="0">'
        f"<title>{escaped(layer['name'])}</title>"
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/>'
        f"{lines}</g>"
    )
