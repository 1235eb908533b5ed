"""A model as one HTML page: its graph, tables of layers, a search, and details on click.

The page loads nothing from elsewhere. Names come from untrusted files: they are escaped, the script
gets its data as JSON and writes them only as text, and the page's policy allows no other script.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.text import counted, shown
from tutelage.dpu.inspect import listing
from tutelage.dpu.inspect.code import PartCode
from tutelage.dpu.inspect.code_listing import COSTS, place_lines
from tutelage.dpu.inspect.draw import STYLE, drawing, escaped
from tutelage.dpu.inspect.engines_drawing import engines_drawing


def page(facts: dict[str, Any], code: Sequence[PartCode] = ()) -> str:
    """Return the page for the facts of `describe`, including values on sample inputs if present.

    Parameters
    ----------
    code : code of the DPU subgraphs, which adds sections with engines and tensors over time

    Raises
    ------
    DpuError
        There are too many layers or connections for a drawing.
    """
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(_title(facts))}</title>
<style>{_STYLE}{STYLE}</style>
</head>
<body>
<h1>{escaped(_title(facts))}</h1>
{_head(facts)}
{_graph(facts)}
<h2>Layers</h2>
<p class="tools"><input id="search" type="search" placeholder="Search by name or type">
<span id="count"></span></p>
{_layer_table(facts)}
{_value_table(facts)}
{_code(code)}
<script type="application/json" id="data">{_json(_details(facts))}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _title(facts: dict[str, Any]) -> str:
    return f"{facts['name']} ({Path(facts['file']).name})"


def _json(value: Any) -> str:
    """Return JSON that cannot end its HTML element."""
    text = json.dumps(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(facts: dict[str, Any]) -> str:
    """Return the summary of the file, and its subgraphs in a collapsible section."""
    summary, subgraphs = listing.head_lines(facts), listing.subgraph_lines(facts)
    text = f"<pre>{escaped_lines(summary)}</pre>"
    if subgraphs:
        count = len(facts["subgraphs"])
        inner = f"<pre>{escaped_lines(subgraphs)}</pre>"
        text += f"<details><summary>{counted(count, 'subgraph')}</summary>{inner}</details>"
    return text


def escaped_lines(lines: Sequence[str]) -> str:
    """Return lines escaped for a <pre> element."""
    return "\n".join(escaped(line) for line in lines)


def _graph(facts: dict[str, Any]) -> str:
    return f"""<h2>Graph</h2>
<p class="tools">Click on a box for its details.
<label><input id="fit" type="checkbox"> whole width</label></p>
<div class="split"><div class="view">{drawing(facts)}</div>
<aside id="details"><p>No layer chosen.</p></aside></div>"""


def _layer_table(facts: dict[str, Any]) -> str:
    layers = facts["layers"]
    *rows, total = listing.layer_rows(layers)
    body = "".join(_row(row, int(row[0]), layers) for row in rows)
    foot = f"<tfoot>{_row(total, None, layers)}</tfoot>"
    table = f"{_header(listing.LAYER_HEAD)}<tbody>{body}</tbody>{foot}"
    note = " ".join(listing.NOTE.split()) if listing.has_cycles(layers) else ""
    return f'<div class="wide"><table>{table}</table></div><p>{escaped(note)}</p>'


def _value_table(facts: dict[str, Any]) -> str:
    if "images" not in facts:
        return ""
    layers = facts["layers"]
    rows = "".join(_row(row, int(row[0]), layers) for row in listing.value_rows(layers))
    advice = "".join(f"<li>{escaped(line)}</li>" for line in listing.advice_lines(layers))
    return (
        f"<h2>Values on {counted(facts['images'], 'image')}</h2><ul>{advice}</ul>"
        f'<div class="wide"><table>{_header(listing.VALUE_HEAD)}<tbody>{rows}</tbody></table></div>'
    )


def _code(code: Sequence[PartCode]) -> str:
    """Return the sections with the engines over time and the locations of tensors."""
    if not code:
        return ""
    tables = "".join(f"<pre>{escaped_lines(place_lines(part))}</pre>" for part in code)
    return (
        f'<h2>Engines over time</h2><div class="wide">{engines_drawing(code)}</div>'
        f"<p>{escaped(' '.join(COSTS.split()))}</p><h2>Places of tensors</h2>{tables}"
    )


def _header(names: Sequence[str]) -> str:
    return f"<thead><tr>{''.join(f'<th>{escaped(name)}</th>' for name in names)}</tr></thead>"


def _row(cells: Sequence[str], number: int | None, layers: Sequence[dict[str, Any]]) -> str:
    """Return a table row; a layer's has its number, and is marked if there is advice."""
    marks = ""
    if number is not None:
        wrong = ' class="wrong"' if layers[number].get("advice") else ""
        marks = f' data-layer="{number}"{wrong}'
    return f"<tr{marks}>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>"


def _details(facts: dict[str, Any]) -> list[list[list[str]]]:
    """Return the details of each layer: pairs of key and text."""
    return [_pairs(number, layer) for number, layer in enumerate(facts["layers"])]


def _pairs(number: int, layer: dict[str, Any]) -> list[list[str]]:
    pairs = [["layer", f"#{number} {layer['name']}"]]
    for key, value in layer.items():
        if key == "name" or value is None or value == []:
            continue
        if isinstance(value, dict):
            pairs += [[f"{key} {inner}", _text(inner, figure)] for inner, figure in value.items()]
        else:
            pairs.append([key, _text(key, value)])
    return [[word.replace("_", " "), shown(text, 2000)] for word, text in pairs]


def _text(word: str, value: Any) -> str:
    if word in ("array_share", "saturated", "zeros"):
        return f"{value:.2%}"
    if isinstance(value, float):
        return f"{value:,.2f}".removesuffix(".00")
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value[:100])) + (" …" if len(value) > 100 else "")
    return str(value)


_STYLE = """
body { margin: 1.5rem; color: #1a1a1a; background: #fff;
       font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 1.6rem; }
pre { overflow-x: auto; font-size: 12px; }
.tools { color: #444; } .tools input[type=search] { width: 20rem; padding: .25rem; }
.split { display: flex; gap: 1rem; align-items: flex-start; }
.view { flex: 1; min-width: 0; overflow: auto; max-height: 82vh; border: 1px solid #ccc; }
.view.fit svg { width: 100%; height: auto; }
aside { flex: 0 0 20rem; max-height: 82vh; overflow: auto; font-size: 12px; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem .8rem; margin: 0; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .5rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #e2e2e2; }
th { position: sticky; top: 0; background: #f2f2f2; }
td:nth-child(2), td:nth-child(3), td:nth-child(4), td:last-child,
th:nth-child(2), th:nth-child(3), th:nth-child(4), th:last-child { text-align: left; }
tfoot td { font-weight: 600; } tr[data-layer] { cursor: pointer; }
tr.wrong td { background: #fdecec; }
tr.chosen td { background: #fff3b8; }
.node { cursor: pointer; } .graph .node.chosen rect { stroke: #000; stroke-width: 3; }
.graph .lines path.chosen { stroke: #c2410c; stroke-width: 2.4; }
.node.faded { opacity: .25; } tr.hidden { display: none; }
@media print {
  body { margin: 0; } .tools, aside { display: none; }
  .view { max-height: none; overflow: visible; border: 0; }
  .view svg { width: 100%; height: auto; } th { position: static; }
  .wide { overflow: visible; } table { font-size: 8px; }
}
"""

_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const panel = document.getElementById("details");
const all = (query) => Array.from(document.querySelectorAll(query));

function choose(number, origin) {
  for (const item of all(".chosen")) item.classList.remove("chosen");
  for (const item of all(`[data-layer="${number}"]`)) {
    item.classList.add("chosen");
    if (item.matches(".node") && origin !== item)
      item.scrollIntoView({ block: "center", inline: "center" });
  }
  for (const line of all(`path[data-from="${number}"], path[data-to="${number}"]`))
    line.classList.add("chosen");
  const list = document.createElement("dl");
  for (const [word, text] of data[number]) {
    list.append(Object.assign(document.createElement("dt"), { textContent: word }));
    list.append(Object.assign(document.createElement("dd"), { textContent: text }));
  }
  panel.replaceChildren(list);
}

for (const item of all("[data-layer]")) {
  item.addEventListener("click", () => choose(item.dataset.layer, item));
  item.addEventListener("keydown", (event) => {
    if (event.key === "Enter") choose(item.dataset.layer, item);
  });
}

const asked = /^#([0-9]+)$/.exec(location.hash);  // page.html#12 opens with layer 12
if (asked && asked[1] < data.length) choose(asked[1], null);

document.getElementById("search").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  const found = new Set();
  data.forEach((pairs, number) => {
    const text = pairs.filter(([word]) => ["layer", "type"].includes(word)).map((p) => p[1]);
    if (text.join(" ").toLowerCase().includes(wanted)) found.add(String(number));
  });
  for (const row of all("tr[data-layer]"))
    row.classList.toggle("hidden", !found.has(row.dataset.layer));
  for (const node of all(".node"))
    node.classList.toggle("faded", !found.has(node.dataset.layer));
  document.getElementById("count").textContent = wanted ? `${found.size} found` : "";
});

document.getElementById("fit").addEventListener("change", (event) =>
  document.querySelector(".view").classList.toggle("fit", event.target.checked));
"""
