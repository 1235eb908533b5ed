"""What a report is made of: sections of text, tables and plots, in no form yet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.text import shown

_LONGEST_LABEL = 48  # characters; longer ones leave no room for the plot

Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    columns : headings, with units
    rows : cells; numbers are sorted as numbers, None is what was not measured
    source : the file that it came from, None where it was computed here
    caption : one line for the reader
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    source: Path | None = None
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot as SVG, and the file whose figures it shows."""

    name: str
    svg: str
    caption: str
    source: Path | None = None


@dataclass
class Section:
    """A part of the report.

    Attributes
    ----------
    name : short, for links
    title : for the reader
    parts : paragraphs (str), tables and plots, in order
    """

    name: str
    title: str
    parts: list[str | Table | Plot] = field(default_factory=list)


def cell_text(cell: Cell) -> str:
    """Return a cell as text: four digits of a number, "-" for what was not measured."""
    return cell if isinstance(cell, str) else digits(cell)


def new_figure(width: float = 9.0, height: float = 4.0) -> tuple[Any, Any]:
    """Return matplotlib's figure and axes; inches."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # Text stays text: it can be searched, and the file is a tenth as large.
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
                         "svg.hashsalt": "tutelage"})  # fmt: skip
    return plt.subplots(figsize=(width, height), layout="constrained")


def label(text: str) -> str:
    """Return text for a plot, in which matplotlib finds no formula and XML no control character."""
    return shown(text, _LONGEST_LABEL).replace("$", "\\$")


def as_svg(figure: Any) -> str:
    """Return a figure as an <svg> element, the same text for the same figure; closes it."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :].strip()
