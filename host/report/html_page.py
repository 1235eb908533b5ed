"""A report as one printable HTML file, without scripts and requests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import quote, unquote

from tutelage.core.text import html_text
from tutelage.host.report.content import (
    CODE_CHARACTERS,
    Bar,
    Cell,
    Fact,
    Facts,
    Heat,
    Part,
    Plot,
    Section,
    Table,
    cell_text,
)
from tutelage.host.report.page_style import STYLE

_CODE = re.compile(f"`({CODE_CHARACTERS})`")
_NUMBER = re.compile(r"[-+−]?\d|-$|$")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Blocks requests and scripts, even if a result contains hostile text."""

_MOST_ROWS = 15
"""Largest number of rows of a table that is not folded."""

_STRONGEST = 0.75  # largest opacity of a cell's background


def html_page(
    title: str, lead: str, sections: Sequence[Section], place: Path, end: str = ""
) -> str:
    """Return the text of the file.

    Parameters
    ----------
    title, lead : heading, and the line below it
    place : directory of the file; links to sources are relative to it
    end : line at the foot of the page
    """
    links = "\n".join(
        f'<li><a href="#{html_text(s.name)}">{html_text(s.title)}</a></li>' for s in sections
    )
    body = "\n".join(_section(section, place) for section in sections)
    footer = f"<footer><p>{_marked(end)}</p></footer>\n" if end else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{html_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="product">Tutelage report</p>
<h1>{html_text(title)}</h1>
<p>{_marked(lead)}</p>
</header>
<nav aria-label="Contents"><ul>
{links}
</ul></nav>
<main>
{body}
</main>
{footer}</body>
</html>
"""


def _section(section: Section, place: Path) -> str:
    name = html_text(section.name)
    text = [f'<section id="{name}" aria-labelledby="{name}-title">',
            f'<h2 id="{name}-title">{html_text(section.title)}</h2>']  # fmt: skip
    parts = section.parts
    if section.is_folded:
        text += [*_parts(section, parts[:1], place), "<details><summary>Details</summary>",
                 *_parts(section, parts[1:], place, 1), "</details>"]  # fmt: skip
    else:
        text += _parts(section, parts, place)
    return "\n".join([*text, "</section>"])


def _parts(section: Section, parts: Sequence[Part], place: Path, first: int = 0) -> Iterator[str]:
    """Yield the HTML of some of a section's parts, the first of which has the number `first`."""
    numbered = enumerate(parts, first)
    for is_small, group in groupby(numbered, lambda item: _is_small(item[1])):
        found = [_part(part, place, f"{section.name}{number}-") for number, part in group]
        yield from ['<div class="pair">', *found, "</div>"] if is_small else found


def _is_small(part: Part) -> bool:
    return isinstance(part, Plot) and part.is_small


def _part(part: Part, place: Path, prefix: str) -> str:
    if isinstance(part, Table):
        return _table(part, place)
    if isinstance(part, Plot):
        return _plot(part, place, prefix)
    if isinstance(part, Facts):
        return f'<dl class="facts">\n{"".join(map(_fact, part.facts))}</dl>'
    return f"<p>{_marked(part)}</p>"


def _marked(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", html_text(text))


def _label(text: str) -> str:
    """Return text for an attribute, which has no markup."""
    return _CODE.sub(r"\1", html_text(text))


def _fact(fact: Fact) -> str:
    kind = note = ""
    if fact.kind:
        word = html_text(fact.kind)
        kind = f'<dd class="kind {word.split(" ", 1)[0]}">{word}</dd>'
    if fact.note:
        note = f'<dd class="note">{_marked(fact.note)}</dd>'
    return (f'<div><dt>{html_text(fact.label)}</dt><dd class="value">{html_text(fact.value)}</dd>'
            f"{kind}{note}</div>\n")  # fmt: skip


def _table(table: Table, place: Path) -> str:
    texts = [any(map(_is_text, column)) for column in zip(*table.rows, strict=True)]
    texts = texts or [True] * len(table.columns)
    heads = "".join(
        f'<th scope="col"{_kind(text)}>{_marked(name)}</th>'
        for name, text in zip(table.columns, texts, strict=True)
    )
    rows = "\n".join(f"<tr>{_row(row, texts)}</tr>" for row in table.rows)
    words = f"{_marked(table.caption)}{_source(table.source, place)}"
    caption = f"<caption>{words}</caption>" if words else ""
    name = table.caption or ", ".join(table.columns[:3])
    # A region that scrolls must be reachable with the keyboard.
    text = (f'<div class="wide" role="group" tabindex="0" aria-label="{_label(name)}">'
            f"<table>{caption}<thead><tr>{heads}</tr></thead>"
            f"<tbody>\n{rows}\n</tbody></table></div>")  # fmt: skip
    if len(table.rows) <= _MOST_ROWS:
        return text
    return f"<details><summary>{len(table.rows)} rows: {_marked(name)}</summary>{text}</details>"


def _is_text(cell: Cell) -> bool:
    """Return whether a cell is text and not a number such as "12.3 ±0.2"."""
    return isinstance(cell, str) and not _NUMBER.match(cell)


def _row(row: Sequence[Cell], texts: Sequence[bool]) -> str:
    head = f'<th scope="row"{_kind(texts[0])}>{_marked(cell_text(row[0]))}</th>'
    return head + "".join(map(_cell, row[1:], texts[1:]))


def _cell(cell: Cell, is_text: bool) -> str:
    text = _marked(cell_text(cell))
    if isinstance(cell, Bar):
        return f'<td class="bar" style="--share: {100 * cell.share:.1f}%">{text}</td>'
    if isinstance(cell, Heat):
        colour = "right" if cell.is_right else "wrong"
        kind = f"heat {colour}" if cell.value else "heat zero"
        return f'<td class="{kind}" style="--share: {_STRONGEST * cell.share:.3f}">{text}</td>'
    return f"<td{_kind(is_text)}>{text}</td>"


def _kind(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def _plot(plot: Plot, place: Path, prefix: str) -> str:
    caption = f"{_marked(plot.caption)}{_source(plot.source, place)}"
    label = _label(plot.caption)
    svg = f'<div role="img" aria-label="{label}">{_own_names(plot.svg, prefix)}</div>'
    if not plot.is_small:
        svg = f'<div class="wide" role="group" tabindex="0" aria-label="{label}">{svg}</div>'
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _own_names(svg: str, prefix: str) -> str:
    """Prefix a plot's ids, since matplotlib uses the same ones in all plots."""
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)


def _source(source: Path | None, place: Path) -> str:
    if source is None:
        return ""
    link = relative(source, place)
    return f' Source: <a href="{link}">{html_text(unquote(link))}</a>.'


def relative(source: Path, place: Path) -> str:
    """Return a file's path as a link from a directory, percent-encoded."""
    return quote(os.fsencode(os.path.relpath(source.resolve(), place.resolve())))
