"""What a report is made of: sections of text, figures, tables and plots, in no form yet.

Texts may have code between backticks, such as a command; each form writes it in its own way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.digits import digits
from tutelage.core.text import shown

_LONGEST_LABEL = 48  # characters; longer ones leave no room for the plot

CODE_CHARACTERS = r"[\w ./:=@,+-]+"
"""What code within a text is made of. Anything else between backticks is part of a name."""

SMALL = (4.4, 2.9)
"""Inches of a plot that has another one beside it, or below it where the page is narrow."""


@dataclass(frozen=True)
class Bar:
    """A number of a table with a bar as long as its share, 0 to 1, of the cell's width."""

    value: float | None
    share: float


@dataclass(frozen=True)
class Heat:
    """A number of a table whose background is as strong as its share, 0 to 1.

    Attributes
    ----------
    is_right : whether much is good, which has another colour
    """

    value: int
    share: float
    is_right: bool


Cell = str | float | int | None | Bar | Heat


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    columns : headings, with units
    rows : cells; None is what was not measured
    source : the file that it came from, None where it was computed here
    caption : one line for the reader
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    source: Path | None = None
    caption: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot as SVG, and the file whose figures it shows.

    Attributes
    ----------
    is_small : of the size `SMALL`; neighbours share a line
    """

    name: str
    svg: str
    caption: str
    source: Path | None = None
    is_small: bool = False


@dataclass(frozen=True)
class Fact:
    """A figure that a reader looks for first.

    Attributes
    ----------
    label, value : with its unit
    kind : how it came about, such as "measured" or "predicted"; "" where that is no question
    note : one line below it
    """

    label: str
    value: str
    kind: str = ""
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """The headline figures."""

    facts: Sequence[Fact]


Part = str | Table | Plot | Facts


@dataclass
class Section:
    """A part of the report.

    Attributes
    ----------
    name : short, for links
    title : for the reader
    parts : paragraphs (str), figures, tables and plots, in order
    """

    name: str
    title: str
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Gap:
    """A section that the report lacks.

    Attributes
    ----------
    title : of the section
    text : why, and the command that makes what it needs
    """

    title: str
    text: str


def cell_text(cell: Cell) -> str:
    """Return a cell as text: four digits of a number, "-" for what was not measured."""
    if isinstance(cell, Bar | Heat):
        cell = cell.value
    return cell if isinstance(cell, str) else digits(cell)


def new_figure(width: float = 9.0, height: float = 4.0) -> tuple[Any, Any]:
    """Return matplotlib's figure and axes; inches."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # Text stays text: it can be searched, and the file is a tenth as large.
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
                         "svg.hashsalt": "tutelage", "legend.frameon": False,
                         "axes.spines.top": False, "axes.spines.right": False})  # fmt: skip
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
    return svg_element(buffer.getvalue())


def svg_element(text: str) -> str:
    """Return the <svg> element of a file of matplotlib, for light and dark pages.

    Its paper is left out, and what it draws in black has the colour of the text around it.
    """
    text = text[text.index("<svg") :].strip()
    for old, new in (("fill: #ffffff", "fill: none"), ("#000000", "currentColor"),
                     ("fill: #e6e6e6", "fill: #80808033")):  # fmt: skip
        text = text.replace(old, new)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
