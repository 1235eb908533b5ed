"""Waiting for conditions rather than times, so that tests do not depend on the machine's load."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 60.0
"""Seconds after which something counts as never happening, however busy the machine is."""


def soon(done: Callable[[], bool]) -> bool:
    """Wait until a condition is true; return False if it stays false."""
    deadline = time.monotonic() + LONG
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
