"""A report as one HTML file: no request leaves it, tables sort, and it prints."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from tutelage.core.text import html_text
from tutelage.host.report.content import Cell, Plot, Section, Table, cell_text

_STYLE = """\
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #ccc; }
nav a { margin-right: 1.2em; }
p { max-width: 48em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9em; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; color: #555; font-size: 0.9em; padding: 0.3em 0; }
th, td { padding: 0.2em 0.7em; border-bottom: 1px solid #e4e4e4; text-align: right;
  vertical-align: top; }
th:first-child, td:first-child, th.text, td.text { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #4c72b0; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
figure { margin: 1em 0; } figure svg { max-width: 100%; height: auto; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } nav { display: none; }
  figure, table { break-inside: avoid; } h2 { break-after: avoid; }
  .wide { overflow: visible; } table { font-size: 0.72em; } th, td { padding: 0.15em 0.35em; } }
"""

_SCRIPT = """\
"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.value ?? "";
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = x - y;
      const way = Number.isNaN(order) ? x.localeCompare(y) : order;
      return down ? -way : way;
    });
    body.append(...rows);
  });
}
"""


def html_page(title: str, lead: str, sections: Sequence[Section], place: Path) -> str:
    """Return the text of the file.

    Parameters
    ----------
    title, lead : heading and what stands below it
    place : directory where the file will lie: links to sources are relative to it
    """
    links = " ".join(f'<a href="#{html_text(s.name)}">{html_text(s.title)}</a>' for s in sections)
    body = "\n".join(_section(section, place) for section in sections)
    # Only this style and this script run, whatever text is in a result.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src '{_hash(_SCRIPT)}'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html_text(title)}</h1>
<p>{html_text(lead)}</p>
<nav>{links}</nav>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _section(section: Section, place: Path) -> str:
    parts = [f'<section id="{html_text(section.name)}">', f"<h2>{html_text(section.title)}</h2>"]
    for number, part in enumerate(section.parts):
        if isinstance(part, Table):
            parts.append(_table(part, place))
        elif isinstance(part, Plot):
            parts.append(_plot(part, place, f"{section.name}{number}-"))
        else:
            parts.append(f"<p>{html_text(part)}</p>")
    return "\n".join([*parts, "</section>"])


def _table(table: Table, place: Path) -> str:
    texts = [any(isinstance(row[k], str) for row in table.rows) for k in range(len(table.columns))]
    heads = "".join(
        f'<th scope="col"{_kind(text)}><button type="button">{html_text(name)}</button></th>'
        for name, text in zip(table.columns, texts, strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    caption = f"<caption>{html_text(table.caption)}{_source(table.source, place)}</caption>"
    return (f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead>'
            f"<tbody>\n{rows}\n</tbody></table></div>")  # fmt: skip


def _cell(cell: Cell) -> str:
    kind, value = _kind(isinstance(cell, str)), html_text("" if cell is None else str(cell))
    return f'<td{kind} data-value="{value}">{html_text(cell_text(cell))}</td>'


def _kind(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def _plot(plot: Plot, place: Path, prefix: str) -> str:
    caption = f"{html_text(plot.caption)}{_source(plot.source, place)}"
    svg = _own_names(plot.svg, prefix)
    label = html_text(plot.caption)
    return (f'<figure role="img" aria-label="{label}">{svg}'
            f"<figcaption>{caption}</figcaption></figure>")  # fmt: skip


def _own_names(svg: str, prefix: str) -> str:
    """Keep one plot's names apart from another's: matplotlib gives all of them the same."""
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
    return quote(Path(os.path.relpath(source.resolve(), place.resolve())).as_posix())


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
