"""A bound on the decoded pixels that all threads together have in memory.

A picture of a few hundred kilobytes may have 67 megapixels, 201 MB once decoded; with a dozen
frames under way a board of 2 GB would run out of memory. So a frame claims its pixels before they
are decoded, and waits while others have too many. Frames that come decoded, as those of a video,
are counted by `tutelage.app.pipeline.dispatch` in the same measure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST_PIXELS = 1 << 26
"""Decoded and under way at once, 201 MB; one picture more where the oldest frame needs it."""


class NoRoom(Exception):
    """There is no room for a picture now; it is still to be decoded."""


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

    def claim(self, ticket: int, pixels: int, gives_up: Callable[[], bool] = lambda: False) -> bool:
        """Claim pixels for a frame, waiting until there is room.

        Parameters
        ----------
        gives_up : asked while there is no room, at first and after each change; true ends the
            waiting, and nothing is claimed

        Returns
        -------
        Whether they were claimed
        """
        with self._changed:
            self._waiting.add(ticket)
            self._changed.wait_for(lambda: self._has_room(ticket, pixels) or gives_up())
            self._waiting.discard(ticket)
            claimed = self._has_room(ticket, pixels)
            if claimed:
                self._claimed[ticket] = pixels
            if self._waiting:
                self._changed.notify_all()  # the next one that waits may have room, too
            return claimed

    def look_again(self) -> None:
        """Have those that wait ask whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def release(self, ticket: int) -> None:
        """Give back what a frame claimed, if it did."""
        if ticket not in self._claimed:  # most frames come with their pixels: no lock for them
            return
        with self._changed:
            del self._claimed[ticket]
            if self._waiting:
                self._changed.notify_all()

    def _has_room(self, ticket: int, pixels: int) -> bool:
        if any(other < ticket for other in self._waiting):
            return False
        if sum(self._claimed.values()) + pixels <= self._most:
            return True
        return all(other > ticket for other in self._claimed)
