"""Laws of the functions that untrusted text goes through before it is shown."""

from __future__ import annotations

import csv
import html
import io
import json

from hypothesis import example, given
from hypothesis import strategies as st

from tutelage.core.text import (
    csv_cells,
    csv_text,
    from_csv,
    html_text,
    json_text,
    markdown_table,
    markdown_text,
    shown,
    shown_lines,
)

# No two lone surrogates in a row that would be read as a pair.
TEXT = st.text() | st.text(st.sampled_from("a=+-@'\t\r\n\\|`*[](<&\x1b\x9b\u202e\0\udcff"))


@given(TEXT, st.integers(1, 80))
def test_shown_text_is_printable_and_bounded(text: str, limit: int) -> None:
    line = shown(text, limit)
    assert line.isprintable() and len(line) <= limit
    assert line == text or len(text) > limit or not text.isprintable()


def test_escapes_are_visible() -> None:
    hostile = "a\x1b]0;title\x07b\x9b2J\u202ec\nd\0\udcff\U000e0001é"
    assert shown(hostile) == r"a\x1b]0;title\x07b\x9b2J\u202ec\nd\x00\udcff\U000e0001é"
    assert shown_lines("a\nb\x1b") == "a\nb\\x1b"
    assert shown("x" * 5000, 10) == "x" * 9 + "…"


@given(TEXT)
def test_a_cell_is_not_a_formula_and_is_read_back(text: str) -> None:
    cell = csv_text(text)
    assert cell.isprintable() and not cell.startswith(("=", "+", "-", "@"))
    if text.isprintable():
        file = io.StringIO()
        csv.writer(file).writerow([cell, -1.5])
        read, number = next(csv.reader(io.StringIO(file.getvalue(), newline="")))
        assert from_csv(read) == text and float(number) == -1.5


def test_numbers_stay_numbers() -> None:
    row = {"label": "-1", "value": -1, "none": None}
    assert csv_cells(row) == {"label": "'-1", "value": -1, "none": None}


@given(
    st.recursive(
        TEXT | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=20,
    )
)
def test_json_is_printable_and_the_same_value(value: object) -> None:
    for indent in (None, 2):
        text = json_text(value, indent)
        assert all(line.isprintable() for line in text.split("\n"))
        assert json.loads(text) == value


@given(TEXT)
@example("]\\(")  # the backslash between them, escaped, keeps them apart
def test_markdown_has_no_markup(text: str) -> None:
    marked = markdown_text(text)
    assert marked.isprintable() and "<" not in marked
    bare = marked.replace("\\\\", "_")
    for mark in ("|", "`", "*", "](", "][", "]:"):
        assert bare.count(mark) == bare.count(f"\\{mark}")


@given(TEXT)
def test_html_has_no_markup_and_shows_the_text(text: str) -> None:
    marked = html_text(text)
    assert not set("<>\"'") & set(marked)
    assert html.unescape(marked) == shown(text)


def test_a_table_is_aligned_by_its_widest_cells() -> None:
    assert markdown_table(["name", "fps"], [("a", "1,234.5"), ("longer", "2")]) == [
        "| name   |     fps |",
        "|--------|--------:|",
        "| a      | 1,234.5 |",
        "| longer |       2 |",
    ]
