"""Contents of a report: sections of text, figures, tables and plots, independent of the format.

Texts may have code between backticks, such as a command; each format renders it in its own way.
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

_LONGEST_LABEL = 48  # characters; a longer label leaves too little room for the plot

CODE_CHARACTERS = r"[\w ./:=@,+-]+"
"""Pattern of code in a text. Backticks around anything else are part of a name."""

SMALL = (4.4, 2.9)
"""Width and height of a plot beside another one (below it on a narrow page), inches."""


@dataclass(frozen=True)
class Bar:
    """A number in a table with a bar, whose share of the cell's width is `share`, 0 to 1."""

    value: float | None
    share: float


@dataclass(frozen=True)
class Heat:
    """A number in a table whose background has the strength `share`, 0 to 1.

    Attributes
    ----------
    is_right : whether a high value is good, which determines the colour
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
    rows : cells; None if not measured
    source : file that the figures are from; None if they were computed for the report
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
    is_small : whether it has the size `SMALL`; adjacent small plots are placed side by side
    """

    name: str
    svg: str
    caption: str
    source: Path | None = None
    is_small: bool = False


@dataclass(frozen=True)
class Fact:
    """A headline figure.

    Attributes
    ----------
    label, value : name, and value with its unit
    kind : origin, such as "measured" or "predicted"; "" if it does not matter
    note : one line below the value
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
    name : short name for links
    title : heading
    parts : paragraphs (str), figures, tables and plots, in order
    is_folded : whether a page shows only the first part until the reader opens the others
    """

    name: str
    title: str
    parts: list[Part] = field(default_factory=list)
    is_folded: bool = False


@dataclass(frozen=True)
class Gap:
    """A section that the report lacks.

    Attributes
    ----------
    title : title of the missing section
    text : reason, and the command that creates what the section needs
    """

    title: str
    text: str


def cell_text(cell: Cell) -> str:
    """Return a cell as text: a number with four digits, "-" if it was not measured."""
    if isinstance(cell, Bar | Heat):
        cell = cell.value
    return cell if isinstance(cell, str) else digits(cell)


def new_figure(width: float = 9.0, height: float = 4.0) -> tuple[Any, Any]:
    """Return matplotlib's figure and axes; width and height in inches."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    # Keep text as text: it can be searched, and the file is a tenth as large.
    plt.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
                         "svg.hashsalt": "tutelage", "legend.frameon": False,
                         "axes.spines.top": False, "axes.spines.right": False})  # fmt: skip
    return plt.subplots(figsize=(width, height), layout="constrained")


def label(text: str) -> str:
    """Return text for a plot, without matplotlib's formulas and XML's forbidden characters."""
    return shown(text, _LONGEST_LABEL).replace("$", "\\$")


def as_svg(figure: Any) -> str:
    """Close a figure and return it as an <svg> element; equal figures give equal text."""
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return svg_element(buffer.getvalue())


def svg_element(text: str) -> str:
    """Return the <svg> element of a matplotlib file, for light and dark pages.

    The background becomes transparent, and black becomes the colour of the surrounding text.
    """
    text = text[text.index("<svg") :].strip()
    for old, new in (("fill: #ffffff", "fill: none"), ("#000000", "currentColor"),
                     ("fill: #e6e6e6", "fill: #80808033")):  # fmt: skip
        text = text.replace(old, new)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
