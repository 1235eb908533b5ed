"""Base class of power sources, and their rails.

Each source lists its rails once and then reads all of them at a constant cost. A reading that
fails is NaN. `tutelage.board.power.plausibility` compares a rail's power with its volts and
amperes; `tutelage.board.power.meter` rejects single impossible readings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.board.power.plausibility import Doubt
from tutelage.core.errors import TutelageError

# No processor or graphics card of a PC draws more; readings above are implausible.
PC_MAX_WATTS = 2000.0


class PowerError(TutelageError):
    """A power source is not available; the message is one line."""


@dataclass(frozen=True)
class Rail:
    """A rail, or another component, whose power is measured.

    Attributes
    ----------
    name : name that is unique within its source
    step_watts : resolution of a reading, W
    max_watts : largest possible power, W; readings far above are implausible
    max_amps : largest possible current, A
    min_watts : smallest possible power, W; smaller readings are implausible
    relative_error : largest relative error of a reading
    lag_seconds : largest difference between the time of a reading and its time stamp, s
    """

    name: str
    step_watts: float
    max_watts: float
    max_amps: float = math.inf
    min_watts: float = 0.0
    relative_error: float = 0.0
    lag_seconds: float = 0.0


class PowerSource:
    """A set of rails; this base class has none.

    Attributes
    ----------
    name : name for `open_power`
    text : one line with the measured rails, or the reason why there are none
    rails : the rails, in the order of `read`
    total_rail : name of the rail that feeds all others; None without one
    counts_energy : `read` returns joules since some time instead of watts
    one_by_one : reading a rail takes time, and rails can be read individually
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
        """Return a reading of each rail, W (or J, see `counts_energy`); NaN if it failed."""
        return []

    def read_rail(self, index: int) -> float:
        """Return the reading of one rail."""
        return self.read()[index]

    def inspect(self, index: int) -> float:
        """Check a rail's sensors; return its current, A, or NaN if it is not measured.

        The sampler calls this a few times per second, for one rail in turn.
        """
        return math.nan

    def doubts(self) -> list[Doubt]:
        """Return the doubts about the readings so far."""
        return []

    def close(self) -> None:
        """Release files and libraries. No reading is possible afterwards."""


def add_total(rails: list[Rail], parts: list[str]) -> str:
    """Return the name of the total of `parts`: the only part, or a new rail for their sum."""
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
