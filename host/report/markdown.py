"""A report as Markdown, with the plots as separate files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from tutelage.core.text import markdown_text
from tutelage.host.report.content import CODE_CHARACTERS, Facts, Part, Plot, Section, Table
from tutelage.host.report.content import cell_text as plain
from tutelage.host.report.html_page import relative

_CODE = re.compile(rf"\\`({CODE_CHARACTERS})\\`")


def document(
    title: str, lead: str, sections: Sequence[Section], output: Path, end: str = ""
) -> str:
    """Return the text of the file.

    Parameters
    ----------
    output : path of the file without its suffix; `plot_file` returns the paths of its plots
    end : last line
    """
    lines = [f"# {markdown_text(title)}", "", _marked(lead)]
    for section in sections:
        lines += ["", f"## {markdown_text(section.title)}"]
        for part in section.parts:
            lines += ["", *_part(part, output)]
    return "\n".join([*lines, *(["", _marked(end)] if end else [])]) + "\n"


def plot_file(plot: Plot, output: Path) -> Path:
    """Return the path of a plot's file: in a directory named as the document."""
    return output / f"{plot.name}.svg"


def _part(part: Part, output: Path) -> list[str]:
    place = output.parent
    if isinstance(part, Table):
        return _table(part, place)
    if isinstance(part, Plot):
        caption, link = markdown_text(part.caption), relative(plot_file(part, output), place)
        return [f"![{caption}]({link}){_source(part.source, place)}"]
    if isinstance(part, Facts):
        rows = [(fact.label, fact.value, fact.kind, fact.note) for fact in part.facts]
        return _rows(["figure", "value", "", ""], rows)
    return [_marked(part)]


def _marked(text: str) -> str:
    return _CODE.sub(r"`\1`", markdown_text(text))


def _table(table: Table, place: Path) -> list[str]:
    lines = _rows(table.columns, [[plain(cell) for cell in row] for row in table.rows])
    caption = f"{_marked(table.caption)}{_source(table.source, place)}".strip()
    return [*lines, *(["", caption] if caption else [])]


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join([" --- ", *[" ---: "] * (len(columns) - 1)])
    found = [f"| {' | '.join(map(_marked, row))} |" for row in (columns, *rows)]
    return [found[0], f"|{rule}|", *found[1:]]


def _source(source: Path | None, place: Path) -> str:
    if source is None:
        return ""
    link = relative(source, place)
    return f" Source: [{markdown_text(unquote(link))}](<{link}>)."
