"""A bound on the decoded pixels that all threads together have in memory.

A file of a few hundred kilobytes may have 67 megapixels, which are 201 MB when decoded; with a
dozen frames in flight, a board with 2 GB would run out of memory. A frame therefore claims its
pixels before it is decoded, and waits while others have too many. Frames that come decoded, as from
a video, are bounded by `tutelage.app.pipeline.dispatch` in the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST_PIXELS = 1 << 26
"""Pixels decoded and in flight at any time, 201 MB, plus one image if the oldest frame needs it."""


class NoRoom(Exception):
    """There is no room for the pixels of an image, which is not decoded yet."""


class PixelBudget:
    """Pixels of the frames in flight, claimed by ticket and released with the result.

    Results leave in the order of the tickets. The oldest frame therefore never waits for the pixels
    of later ones, which would be a deadlock.

    Parameters
    ----------
    most : bound on the claimed pixels
    """

    def __init__(self, most: int = MOST_PIXELS) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._claimed: dict[int, int] = {}
        self._waiting: set[int] = set()

    @property
    def claimed(self) -> int:
        """Number of pixels that are claimed now."""
        with self._changed:
            return sum(self._claimed.values())

    def claim(self, ticket: int, pixels: int, gives_up: Callable[[], bool] = lambda: False) -> bool:
        """Claim pixels for a frame, waiting until there is room.

        Parameters
        ----------
        ticket : ticket of the frame's job
        pixels : number of pixels
        gives_up : function called while there is no room, initially and after each change. True
            ends the waiting, without a claim

        Returns
        -------
        Whether the pixels were claimed
        """
        with self._changed:
            self._waiting.add(ticket)
            self._changed.wait_for(lambda: self._has_room(ticket, pixels) or gives_up())
            self._waiting.discard(ticket)
            claimed = self._has_room(ticket, pixels)
            if claimed:
                self._claimed[ticket] = pixels
            if self._waiting:
                self._changed.notify_all()  # the next waiting frame may have room too
            return claimed

    def look_again(self) -> None:
        """Make waiting claims check whether to give up."""
        with self._changed:
            self._changed.notify_all()

    def release(self, ticket: int) -> None:
        """Release a frame's claim, if it has one."""
        if ticket not in self._claimed:  # without the lock, since most frames have no claim
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
