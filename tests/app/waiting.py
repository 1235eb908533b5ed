"""Waiting for a condition rather than for a time, so that no test depends on the machine's load."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 60.0
"""Seconds after which something counts as never happening, however busy the machine is."""


def soon(done: Callable[[], bool]) -> bool:
    """Wait until something is so; False if it never is."""
    deadline = time.monotonic() + LONG
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
