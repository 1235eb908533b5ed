"""How much the benchmarks measure: in full, in five minutes, or each part of them once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from tutelage.core.errors import FAILED, TutelageError


class CannotRun(TutelageError):
    """A benchmark needs something that this machine has not; the text is one line."""

    status = FAILED


@dataclass(frozen=True)
class Extent:
    """Upper bounds of what a benchmark repeats.

    Attributes
    ----------
    repeats : rounds of a comparison, and runs of a contender within a round
    images : of a batch, and those that instructions are counted of
    seconds : of a stretch of running that is measured, s
    frames : of the long run whose memory is compared
    """

    repeats: int = sys.maxsize
    images: int = sys.maxsize
    seconds: float = math.inf
    frames: int = sys.maxsize


FULL, SHORT = Extent(), Extent(repeats=1, images=8, seconds=0.2, frames=500)
"""What `make bench FULL=1` measures, and what suffices to see that every part works."""
