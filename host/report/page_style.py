"""The style of a report's page: light and dark, from a phone's width to printed A4."""

from __future__ import annotations

_LIGHT = """\
  --paper: #ffffff; --ink: #1b1f24; --soft: #56606c; --line: #dce1e7; --card: #f4f6f9;
  --link: #1f5aa6; --bar: #c5d9f2; --good: 31 120 80; --bad: 200 60 50; --code: #eceff3;
  --measured: #1c6b45; --predicted: #a03a1c; --emulated: #5b4a8a;
"""
_DARK = """\
  --paper: #14171b; --ink: #e4e7eb; --soft: #a2acb8; --line: #333a43; --card: #1d2228;
  --link: #85b4f2; --bar: #2b4a72; --good: 30 120 75; --bad: 175 55 45; --code: #262c34;
  --measured: #7ad0a4; --predicted: #f0a283; --emulated: #b9a8ea;
"""

STYLE = f"""\
:root {{ color-scheme: light;
{_LIGHT}}}
@media screen and (prefers-color-scheme: dark) {{ :root {{ color-scheme: dark;
{_DARK}}} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; }}
body {{ font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; margin: 0 auto;
  max-width: 66rem; padding: 1.5rem 1.25rem 3rem; color: var(--ink); background: var(--paper);
  overflow-wrap: break-word; }}
a {{ color: var(--link); }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }}
h2 {{ font-size: 1.3rem; line-height: 1.3; margin: 0 0 .6rem; }}
header p {{ color: var(--soft); margin: 0; max-width: 46rem; }}
header .product {{ font-size: .85rem; letter-spacing: .06em; text-transform: uppercase; }}
nav {{ margin: 1.2rem 0 0; padding: .7rem 0; border: solid var(--line); border-width: 1px 0;
  font-size: .92rem; }}
nav ul {{ list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin: 0;
  padding: 0; }}
nav a {{ text-decoration: none; }} nav a:hover {{ text-decoration: underline; }}
section {{ margin-top: 2.6rem; }}
section > p {{ max-width: 46rem; margin: 0 0 .9rem; }}
code {{ font: .9em ui-monospace, "DejaVu Sans Mono", Consolas, monospace; background: var(--code);
  border-radius: .25em; padding: .1em .3em; overflow-wrap: anywhere; }}
:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
dl.facts {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr));
  gap: .8rem; margin: 0 0 1.1rem; }}
dl.facts > div {{ background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .75rem .9rem .8rem; }}
dl.facts dt {{ color: var(--soft); font-size: .85rem; }}
dl.facts dd {{ margin: 0; }}
dl.facts .value {{ font-size: 1.4rem; font-weight: 600; line-height: 1.35;
  font-variant-numeric: tabular-nums; }}
dl.facts .note {{ color: var(--soft); font-size: .85rem; line-height: 1.4; }}
.kind {{ font-size: .78rem; font-weight: 600; color: var(--soft); }}
.kind.measured {{ color: var(--measured); }} .kind.predicted {{ color: var(--predicted); }}
.kind.emulated {{ color: var(--emulated); }}
.wide {{ overflow-x: auto; margin: 0 0 1.2rem; }}
details {{ margin: 0 0 1.2rem; }}
summary {{ cursor: pointer; padding: .3rem 0; font-size: .9rem; color: var(--link); }}
table {{ border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }}
caption, figcaption {{ text-align: left; color: var(--soft); font-size: .88rem; line-height: 1.4;
  padding: .2rem 0 .4rem; }}
th, td {{ padding: .28rem .65rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; font-weight: 400; }}
thead th {{ font-weight: 600; vertical-align: bottom; border-bottom-color: var(--soft); }}
th:first-child, td:first-child, th.text, td.text {{ text-align: left; }}
th:first-child {{ padding-left: 0; }}
td.text {{ min-width: 8rem; overflow-wrap: anywhere; }}
td.bar {{ min-width: 9rem;
  background: linear-gradient(to right, var(--bar) var(--share), transparent 0) no-repeat
  0 .3rem / 100% 1.2rem; }}
td.heat {{ text-align: center; min-width: 2.3rem; padding: .28rem .3rem; }}
td.right {{ background: rgb(var(--good) / var(--share)); }}
td.wrong {{ background: rgb(var(--bad) / var(--share)); }}
td.zero {{ color: var(--soft); }}
figure {{ margin: 0 0 1.4rem; min-width: 0; }}
figure svg {{ display: block; max-width: 100%; height: auto; overflow: visible;
  color: var(--ink); fill: currentColor; }}
figure svg > rect:first-child {{ fill: none; }}
.pair {{ display: flex; flex-wrap: wrap; gap: 0 1.5rem; }}
.pair figure {{ flex: 1 1 20rem; max-width: 30rem; }} .pair svg {{ width: 100%; }}
footer {{ margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line);
  color: var(--soft); font-size: .88rem; }}
@media screen and (max-width: 48rem) {{
  body {{ padding: 1rem 1rem 2rem; }} h1 {{ font-size: 1.55rem; }}
  dl.facts {{ grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }}
  figure > .wide svg {{ max-width: none; width: 42rem; }}
  td {{ white-space: nowrap; }} td.text {{ overflow-wrap: normal; white-space: normal; }}
  tbody th.text {{ min-width: 8rem; }}
  caption {{ position: sticky; left: 0; max-width: calc(100vw - 2rem); }}
}}
@media print {{
  @page {{ size: A4; margin: 14mm; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  body {{ max-width: none; padding: 0; font-size: 10pt; }} nav {{ display: none; }}
  section {{ margin-top: 1.4rem; }} figure, tr, dl.facts > div {{ break-inside: avoid; }}
  h2, caption {{ break-after: avoid; }}
  .wide {{ overflow: visible; }}
  summary {{ display: none; }} details::details-content {{ content-visibility: visible; }}
  dl.facts {{ grid-template-columns: repeat(3, 1fr); gap: .5rem; }}
  dl.facts .value {{ font-size: 1.1rem; }}
  table {{ font-size: 7.5pt; max-width: 100%; }}
  th, td {{ padding: .12rem .3rem; overflow-wrap: anywhere; }}
  td.heat, td.text {{ min-width: 0; }}
  td.bar {{ min-width: 5rem; background-position-y: .12rem; background-size: 100% .9rem; }}
}}
"""
"""Style of the page. Prints always use the light colours."""

PLOT_STYLE = (
    "<style>svg:root{color:#1b1f24;background:#fff;fill:currentColor}"
    "@media (prefers-color-scheme:dark){svg:root{color:#e4e7eb;background:#14171b}}"
    "svg:root>style+rect{fill:none}</style>"
)
"""Style of a plot in a separate file."""
