"""A bound on the decoded pixels that all threads together have in memory.

A picture of a few hundred kilobytes may have 67 megapixels, 201 MB once decoded; with a dozen
frames under way a board of 2 GB would run out of memory. So a frame claims its pixels before they
are decoded, and waits while others have too many.
"""

from __future__ import annotations

import threading

MOST_PIXELS = 1 << 26
"""Decoded and under way at once, 201 MB; one picture more where the oldest frame needs it."""


class PixelBudget:
    """Pixels of the frames under way, claimed by ticket and released when a result is given out.

    Results are given out in the order of the tickets, so that a frame never waits for pixels of
    later ones alone: these wait for it in turn.
    """

    def __init__(self, most: int = MOST_PIXELS) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._claimed: dict[int, int] = {}
        self._waiting: set[int] = set()

    @property
    def claimed(self) -> int:
        """How many pixels are claimed now."""
        with self._changed:
            return sum(self._claimed.values())

    def claim(self, ticket: int, pixels: int, wait: bool = True) -> bool:
        """Claim pixels for a frame, waiting until there is room; without `wait` False if not."""
        with self._changed:
            if not self._has_room(ticket, pixels):
                if not wait:
                    return False
                self._waiting.add(ticket)
                self._changed.wait_for(lambda: self._has_room(ticket, pixels))
                self._waiting.discard(ticket)
            self._claimed[ticket] = pixels
            self._changed.notify_all()  # the next one that waits may have room, too
            return True

    def release(self, ticket: int) -> None:
        """Give back what a frame claimed, if it did."""
        with self._changed:
            if self._claimed.pop(ticket, None) is not None and self._waiting:
                self._changed.notify_all()

    def _has_room(self, ticket: int, pixels: int) -> bool:
        if any(other < ticket for other in self._waiting):
            return False
        if sum(self._claimed.values()) + pixels <= self._most:
            return True
        return all(other > ticket for other in self._claimed)
