"""Tables in Markdown, aligned so that they read well in a terminal, too."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: its first column to the left, the others to the right.

    Parameters
    ----------
    columns : headings
    rows : cells, each safe for Markdown, see `tutelage.core.text.markdown_text`
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        texts = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(texts)} |"

    rules = ["-" * (width + 1) + (":" if k else "-") for k, width in enumerate(widths)]
    return [line(columns), f"|{'|'.join(rules)}|", *map(line, rows)]
