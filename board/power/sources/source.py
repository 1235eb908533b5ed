"""A source of power readings, and its rails.

Each source lists its rails once and then reads all of them at a constant cost. A reading that
fails is NaN. Whether a rail's power reading is believed beside its volts and amperes is judged by
`tutelage.board.power.plausibility`, whether a single number is possible by
`tutelage.board.power.meter`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.board.power.plausibility import Doubt
from tutelage.core.errors import TutelageError

# No processor or graphics card of a PC draws more; only meant to tell nonsense from readings.
PC_MAX_WATTS = 2000.0


class PowerError(TutelageError):
    """A power source that is not there; the text is one line for the user."""


@dataclass(frozen=True)
class Rail:
    """One thing whose power is measured.

    Attributes
    ----------
    name : unique within its source
    step_watts : resolution of a reading, W
    max_watts : the most it can draw, W; readings far above are nonsense
    max_amps : the same for its current, A
    min_watts : what it draws at least, W; less is nonsense too
    relative_error : share of the reading by which it may be wrong
    lag_seconds : by how much a reading may be older than its time stamp, s
    """

    name: str
    step_watts: float
    max_watts: float
    max_amps: float = math.inf
    min_watts: float = 0.0
    relative_error: float = 0.0
    lag_seconds: float = 0.0


class PowerSource:
    """A set of rails that are read together; this one has none.

    Attributes
    ----------
    name : as `open_power` knows it
    text : one line for the user: what is measured, or why nothing is
    rails : what `read` returns, in its order
    total_rail : the rail that holds all others, None where there is none
    counts_energy : `read` returns joules since some time instead of watts
    one_by_one : each rail takes its time to read, and can be read alone
    """

    name = "none"
    counts_energy = False
    one_by_one = False

    def __init__(self, text: str, rails: Sequence[Rail] = (), total_rail: str | None = None):
        self.text = text
        self.rails = tuple(rails)
        names = {rail.name for rail in rails}
        self.total_rail = total_rail if total_rail in names else None

    def read(self) -> list[float]:
        """Return one reading per rail, W (or J, see `counts_energy`), NaN where there is none."""
        return []

    def read_rail(self, index: int) -> float:
        """Return one rail's reading."""
        return self.read()[index]

    def inspect(self, index: int) -> float:
        """Look after a rail; return its current, A, NaN where it is not measured.

        The sampler does this a few times per second, for one rail in turn.
        """
        return math.nan

    def doubts(self) -> list[Doubt]:
        """Return what speaks against readings so far."""
        return []

    def close(self) -> None:
        """Release files and libraries; no reading after this."""


def add_total(rails: list[Rail], parts: list[str]) -> str:
    """Return the name of the rail that holds `parts`; several get one more rail, their sum."""
    if len(parts) == 1:
        return parts[0]
    added = [rail for rail in rails if rail.name in parts]
    rails.append(
        Rail(
            "total",
            sum(rail.step_watts for rail in added),
            sum(rail.max_watts for rail in added),
            relative_error=max(rail.relative_error for rail in added),
            lag_seconds=max(rail.lag_seconds for rail in added),
        )
    )
    return "total"
