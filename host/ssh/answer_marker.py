"""Where a command's output begins, after what the login files of a host may print before it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import IO

_MOST_LINE = 1 << 20  # bytes; a longer line comes in pieces


class Marker:
    """A random line in front of what a command prints."""

    def __init__(self) -> None:
        self._halves = secrets.token_hex(8), secrets.token_hex(8)
        self._line = "".join(self._halves) + "\n"

    def before(self, command: str) -> str:
        """Return a shell command that prints the marker, to both outputs, and runs `command`."""
        # In halves: a login file that prints the command line does not print the marker.
        mark = f"printf '%s%s\\n' {self._halves[0]} {self._halves[1]}"
        return f"{mark}; {mark} >&2; {command}"

    def split(self, text: str) -> tuple[str, str | None]:
        """Return what is in front of the marker and what is behind it, None where there is none."""
        noise, found, answer = text.partition(self._line)
        return noise, answer if found else None

    def last(self, text: str) -> str:
        """Return what is behind the marker, or everything where there is none."""
        noise, answer = self.split(text)
        return noise if answer is None else answer

    def skip(self, pipe: IO[bytes]) -> Iterator[str]:
        """Yield the lines behind the marker as they come."""
        seen = False
        while line := pipe.readline(_MOST_LINE):
            if seen:
                yield line.decode(errors="replace")
            # At the end of a line: there may be noise in front that does not end its own.
            seen = seen or line.endswith(self._line.encode())
