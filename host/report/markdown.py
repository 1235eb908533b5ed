"""A report as Markdown: the same text and tables, with the plots as files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from tutelage.core.text import markdown_text
from tutelage.host.report.content import Plot, Section, Table, cell_text
from tutelage.host.report.html_page import relative


def document(title: str, lead: str, sections: Sequence[Section], place: Path) -> str:
    """Return the text of the file.

    Parameters
    ----------
    place : directory where it will lie; `plot_file` tells where its plots are meant to be
    """
    lines = [f"# {markdown_text(title)}", "", markdown_text(lead)]
    for section in sections:
        lines += ["", f"## {markdown_text(section.title)}"]
        for part in section.parts:
            lines.append("")
            if isinstance(part, Table):
                lines += _table(part, place)
            elif isinstance(part, Plot):
                caption = markdown_text(part.caption)
                lines.append(f"![{caption}]({plot_file(part)}){_source(part.source, place)}")
            else:
                lines.append(markdown_text(part))
    return "\n".join(lines) + "\n"


def plot_file(plot: Plot) -> str:
    """Name of a plot's file, relative to the document."""
    return f"report/{plot.name}.svg"


def _table(table: Table, place: Path) -> list[str]:
    lines = [f"| {' | '.join(map(markdown_text, table.columns))} |"]
    lines.append("|" + "|".join([" --- ", *[" ---: "] * (len(table.columns) - 1)]) + "|")
    lines += [
        f"| {' | '.join(markdown_text(cell_text(cell)) for cell in row)} |" for row in table.rows
    ]
    caption = f"{markdown_text(table.caption)}{_source(table.source, place)}".strip()
    return [*lines, *(["", caption] if caption else [])]


def _source(source: Path | None, place: Path) -> str:
    if source is None:
        return ""
    link = relative(source, place)
    return f" Source: [{markdown_text(unquote(link))}](<{link}>)."
