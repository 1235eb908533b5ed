"""Escape untrusted text for display: on a terminal, in CSV, Markdown, HTML, SVG and JSON.

Names, labels and messages that come from files, streams and boards may have any characters and
any length. Apply these functions where such text leaves the program; data in memory is unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

LONGEST_NAME, LONGEST_LINE = 160, 1500
"""Longest name and longest line that are shown, characters."""

_FORMULA = ("=", "+", "-", "@", "'")
_MARKUP = re.compile(r"[\\`*|]|\](?=[(\[:])")


def clipped(text: str, limit: int) -> str:
    """Return the text, truncated with an ellipsis if it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(text: object, limit: int = LONGEST_LINE) -> str:
    r"""Return the text escaped for one line of a terminal, a log or a page.

    Characters that are not printable (controls, escapes, line breaks, bidirectional overrides,
    lone surrogates) are written as Python escapes, such as ``\x1b`` and ``\u202e``.

    >>> shown("net\x1b[2J\n")
    'net\\x1b[2J\\n'
    """
    return clipped(_escaped(str(text)[: limit + 1]), limit)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1.

    >>> counted(1, "image"), counted(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown_lines(text: str) -> str:
    """Return a multi-line text escaped for a terminal: as `shown`, but keeping line breaks."""
    return "\n".join(map(_escaped, text.split("\n")))


def csv_text(text: str) -> str:
    r"""Return the text as a CSV cell that spreadsheets do not interpret as a formula.

    A text that begins with ``= + - @`` or an apostrophe gets an apostrophe in front; readers of the
    table remove one leading apostrophe (`from_csv`). Characters that are not printable are written
    as `shown` writes them.
    """
    text = _escaped(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_csv(cell: str) -> str:
    """Return the text of a cell written by `csv_text`."""
    return cell.removeprefix("'")


def csv_cell(value: Any) -> Any:
    """Return a CSV cell: text escaped by `csv_text`, other values unchanged."""
    return csv_text(value) if isinstance(value, str) else value


def csv_cells(values: dict[str, Any]) -> dict[str, Any]:
    """Return a CSV row, with each value converted by `csv_cell`."""
    return {key: csv_cell(value) for key, value in values.items()}


def markdown_text(text: object, limit: int = LONGEST_LINE) -> str:
    """Return the text for one line or cell of Markdown, with all markup escaped."""
    marked = _MARKUP.sub(r"\\\g<0>", shown(text, limit))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: first column left-aligned, the others right-aligned.

    Parameters
    ----------
    rows : already escaped cells (`markdown_text`), one per column in each row
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
    """Return the text escaped for one line of HTML or SVG, including quoted attributes."""
    import html

    return html.escape(shown(text, limit))


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return a value as JSON that contains only printable characters.

    Letters of all scripts are kept; characters that `shown` escapes are written as ``\uXXXX``, so
    that reading gives back the same text. Dates and other types of TOML become strings.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    if text.isprintable():
        return text
    lines = text.split("\n")  # JSON strings contain no raw line breaks
    return "\n".join(line if line.isprintable() else _json_escaped(line) for line in lines)


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _json_escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
