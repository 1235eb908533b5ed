"""Marker of the beginning of a command's output, after text that login files may print."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import IO

_MOST_LINE = 1 << 20  # bytes; longer lines are split


class Marker:
    """A random line that is printed before the output of a command."""

    def __init__(self) -> None:
        self._halves = secrets.token_hex(8), secrets.token_hex(8)
        self._line = "".join(self._halves) + "\n"

    def before(self, command: str) -> str:
        """Return a shell command that prints the marker, to both outputs, and runs `command`."""
        # In halves, so that a login file that prints the command line does not print the marker.
        mark = f"printf '%s%s\\n' {self._halves[0]} {self._halves[1]}"
        return f"{mark}; {mark} >&2; {command}"

    def split(self, text: str) -> tuple[str, str | None]:
        """Return the text before the marker, and that after it, None without a marker."""
        noise, found, answer = text.partition(self._line)
        return noise, answer if found else None

    def last(self, text: str) -> str:
        """Return the text after the marker, or all of it without a marker."""
        noise, answer = self.split(text)
        return noise if answer is None else answer

    def skip(self, pipe: IO[bytes]) -> Iterator[str]:
        """Yield the lines after the marker as they arrive."""
        seen = False
        while line := pipe.readline(_MOST_LINE):
            if seen:
                yield line.decode(errors="replace")
            # The line may begin with noise that does not end in a newline.
            seen = seen or line.endswith(self._line.encode())
