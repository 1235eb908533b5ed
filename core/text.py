"""Untrusted text as it may be shown: on a terminal, in CSV, Markdown, HTML, SVG and JSON.

Names, labels and messages that come from files, streams and boards may have any character and any
length. These functions are used where such a text leaves the program. Data in memory keeps it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

LONGEST_NAME, LONGEST_LINE = 160, 1500
"""Most characters of a name and of a line that are shown."""

_FORMULA = ("=", "+", "-", "@", "'")
_MARKUP = re.compile(r"[\\`*|]|\](?=[(\[:])")


def clipped(text: str, limit: int) -> str:
    """Return the text, cut with an ellipsis where it is longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(text: object, limit: int = LONGEST_LINE) -> str:
    r"""Return the text for one line of a terminal, a log or a page.

    Characters that are not printable (controls, escapes, line breaks, bidirectional overrides,
    lone surrogates) are written as Python writes them, such as ``\x1b`` and ``\u202e``.

    >>> shown("net\x1b[2J\n")
    'net\\x1b[2J\\n'
    """
    return clipped(_escaped(str(text)[: limit + 1]), limit)


def counted(count: int, noun: str) -> str:
    """Return a number with what it counts.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown_lines(text: str) -> str:
    """Return a text of several lines for a terminal: `shown` but for the line breaks, not cut."""
    return "\n".join(map(_escaped, text.split("\n")))


def csv_text(text: str) -> str:
    r"""Return the text as a cell that no spreadsheet takes for a formula.

    A text that begins with ``= + - @`` or an apostrophe gets an apostrophe in front; whoever reads
    the table takes one leading apostrophe off (`from_csv`). Characters that are not printable are
    written as `shown` writes them.
    """
    text = _escaped(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_csv(cell: str) -> str:
    """Return the text of a cell that `csv_text` wrote."""
    return cell.removeprefix("'")


def csv_cell(value: Any) -> Any:
    """Return a cell of a table, a text as `csv_text` has it; numbers stay numbers."""
    return csv_text(value) if isinstance(value, str) else value


def csv_cells(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a table, each value as `csv_cell` has it."""
    return {key: csv_cell(value) for key, value in values.items()}


def markdown_text(text: object, limit: int = LONGEST_LINE) -> str:
    """Return the text for one line or cell of Markdown, in which nothing of it is markup."""
    marked = _MARKUP.sub(r"\\\g<0>", shown(text, limit))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, its first column to the left, the others to the right.

    Parameters
    ----------
    rows : cells that are escaped already (`markdown_text`), as many as `columns` in each
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return (
            "| " + " | ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]) + " |"
        )

    rule = "|" + "|".join("-" * (w + 1) + (":" if k else "-") for k, w in enumerate(widths)) + "|"
    return [line(columns), rule, *map(line, rows)]


def html_text(text: object, limit: int = LONGEST_LINE) -> str:
    """Return the text for one line of HTML or SVG, also inside a quoted attribute."""
    import html

    return html.escape(shown(text, limit))


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON in which every character is printable.

    Letters of all scripts stay as they are; what `shown` escapes is written as ``\uXXXX``, so that
    reading it back gives the same text. Dates and other types of TOML become strings.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    lines = text.split("\n")  # within strings JSON has none
    return "\n".join(line if line.isprintable() else _json_escaped(line) for line in lines)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _json_escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
