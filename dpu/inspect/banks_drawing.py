"""SVG drawing of a DPU's banks over time: which rows store which map, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tutelage.dpu.compiler.board.part import Part
from tutelage.dpu.inspect.draw import escaped
from tutelage.dpu.inspect.plan import Held, held_rows
from tutelage.dpu.ops.limits import BANK_DEPTH

_LEFT, _TOP, _WIDTH, _HEIGHT, _GAP = 60, 40, 900, 240, 26
_STYLE = 'font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif'
_COLOURS = ("#5b86b3", "#c2410c", "#6b9a57", "#95608c", "#b58b2e", "#4f8a8b", "#8c6d5a", "#7a7fb8")
_NARROWEST = 40
"""Least width of a box with a name, pixels."""


def banks_svg(parts: Sequence[Part]) -> str:
    """Return the pictures of all subgraphs, one below the other, as the text of an SVG file."""
    heights = [_picture_height(part) for part in parts]
    body = "".join(
        f'<g transform="translate(0 {sum(heights[:number])})">{_picture(part)}</g>'
        for number, part in enumerate(parts)
    )
    width, height = _LEFT + _WIDTH + 20, sum(heights)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="Banks of the DPU over time" '
        f'style="{escaped(_STYLE)}">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _picture_height(part: Part) -> int:
    return _TOP + part.plan.shape.groups * (_HEIGHT + _GAP) + 10


def _picture(part: Part) -> str:
    cycles = part.timeline.cycles or 1.0
    banks = part.plan.shape.array.rows
    title = f"rows of the banks over {cycles:,.0f} simulated cycles; pale: a ring of rows"
    boxes = "".join(_boxes(held_rows(part), banks, cycles))
    return f"{_text(8, 18, title)}{''.join(_frames(part.plan.shape.groups))}{boxes}"


def _frames(groups: int) -> Iterator[str]:
    for group in range(groups):
        y = _TOP + group * (_HEIGHT + _GAP)
        yield _text(_LEFT - 8, y + 12, f"VB{group}", "end")
        yield _text(_LEFT - 8, y + _HEIGHT, f"{BANK_DEPTH:,}", "end")
        yield (
            f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
            'stroke="#d0d0d0"/>'
        )


def _boxes(held: Sequence[Held], banks: int, cycles: float) -> Iterator[str]:
    names = list(dict.fromkeys(each.name for each in held))
    for each in held:
        colour = _COLOURS[names.index(each.name) % len(_COLOURS)]
        x = _LEFT + _WIDTH * each.begin / cycles
        width = max(0.5, _WIDTH * (each.end - each.begin) / cycles)
        top = _TOP + each.chip.bank // banks * (_HEIGHT + _GAP)
        for first, last in _stretches(each):
            y, height = top + _HEIGHT * first / BANK_DEPTH, _HEIGHT * (last - first) / BANK_DEPTH
            yield (
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill="{colour}" fill-opacity="{0.35 if each.ring else 0.85}" stroke="#fff" '
                f'stroke-width="0.4"><title>{escaped(_describe(each, first, last))}</title></rect>'
            )
            if width > _NARROWEST and height > 11:
                yield _text(x + 3, y + height / 2 + 4, each.name[-int(width / 6.5) :])


def _stretches(each: Held) -> list[tuple[int, int]]:
    """Return the bank rows, split in two if they wrap around to the first row."""
    end = each.chip.base + each.chip.words
    if end <= BANK_DEPTH:
        return [(each.chip.base, end)]
    return [(each.chip.base, BANK_DEPTH), (0, end - BANK_DEPTH)]


def _describe(each: Held, first: int, last: int) -> str:
    what = "rows of " if each.ring else ""
    return f"{what}{each.name}: bank rows {first} to {last}, {each.begin:,.0f} to {each.end:,.0f}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text, 200)}</text>'
