"""Hostile names of files, pictures and boards, and checks of outputs that show them."""

from __future__ import annotations

ESCAPES = "\x1b]0;own\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\nclassify: all is well\x7f"
"""Sets a terminal's title, clears it, colours it, reverses text, and forges an output line."""

MARKUP = '<img src=x onerror="alert(1)"></script>|`rm`|[a](javascript:alert(1))&amp;'

FORMULA = '=HYPERLINK("http://evil";"x")'

HOSTILE = ESCAPES + MARKUP


def unprintable(text: str) -> set[str]:
    """Return the characters of an output that a terminal must not get, except line feeds."""
    return {c for c in text if not c.isprintable() and c != "\n"}


def check(text: str, own_lines: int | None = None) -> None:
    """Verify that a text is printable, and that no name starts a new line."""
    assert not unprintable(text), repr(text)
    assert not any(line.startswith("classify: all is well") for line in text.split("\n")), text
    if own_lines is not None:
        assert len(text.splitlines()) == own_lines, text


FILE_NAME = HOSTILE.replace("/", "_").replace("\r", "")
"""The text as a file name: without separators, and shorter than 255 bytes."""
