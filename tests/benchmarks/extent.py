"""The extent of the benchmarks: full, five minutes, or each part once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from tutelage.core.errors import FAILED, TutelageError


class CannotRun(TutelageError):
    """A benchmark needs something that this machine lacks; the message is one line."""

    status = FAILED


@dataclass(frozen=True)
class Extent:
    """Upper bounds of a benchmark's repetitions.

    Attributes
    ----------
    repeats : rounds of a comparison, and runs of a contender within a round
    images : images in a batch, and images for which instructions are counted
    seconds : duration of a measured run, s
    frames : frames of the long run whose memory is compared
    """

    repeats: int = sys.maxsize
    images: int = sys.maxsize
    seconds: float = math.inf
    frames: int = sys.maxsize


FULL, SHORT = Extent(), Extent(repeats=1, images=8, seconds=0.2, frames=500)
"""Extents of `make bench FULL=1`, and of a short run that only shows that every part works."""
