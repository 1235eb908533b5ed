"""How much the benchmarks measure: in full, or each part of them once."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Extent:
    """Upper bounds of what a benchmark repeats.

    Attributes
    ----------
    repeats : rounds of a comparison, and runs of a contender within a round
    images : of a batch
    seconds : of a stretch of running that is measured, s
    frames : of the long run whose memory is compared
    """

    repeats: int = sys.maxsize
    images: int = sys.maxsize
    seconds: float = math.inf
    frames: int = sys.maxsize


FULL, SHORT = Extent(), Extent(repeats=1, images=8, seconds=0.2, frames=500)
"""What `make bench` measures, and what suffices to see that every part works."""
