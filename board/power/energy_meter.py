"""The energy and power of a block of code, behind `tutelage.Power`.

with tutelage.Power() as power:
    for path in paths:
        net.classify(path)
print(power.energy, "J", power.watts, "W", power.reason)
"""

from __future__ import annotations

import time

from tutelage.board.power.sampler import Power, PowerError, RailFigures, open_power
from tutelage.core.board_profile import DEFAULT_BOARD


class EnergyMeter:
    """Measures one `with` block, from its beginning to its end, or up to now while it runs.

    Parameters
    ----------
    source : "pmbus", "hwmon", "rapl", "nvml"; "auto" takes the first that is there; "none"
    board : profile that names the board's rails

    Raises
    ------
    PowerError
        The named source is not there. With "auto" nothing is raised: figures are None then, and
        `reason` says why.
    TomlError
        There is no such board.
    """

    def __init__(self, source: str = "auto", board: str = DEFAULT_BOARD) -> None:
        self._sampler: Power = open_power(source, board)
        self._start = 0.0
        self._ended: tuple[float, dict[str, RailFigures]] | None = None

    def __enter__(self) -> EnergyMeter:
        if self._ended:
            raise PowerError("this meter has measured its block; make another one for the next")
        self._sampler.start()
        self._start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        end = time.monotonic()
        self._ended = end - self._start, self._sampler.energy(self._start, end)
        self._sampler.close()

    @property
    def seconds(self) -> float:
        """Length of the block, s."""
        return self._ended[0] if self._ended else time.monotonic() - self._start

    @property
    def rails(self) -> dict[str, RailFigures]:
        """Power (W) and energy (J) of each rail; empty where nothing is measured."""
        if self._ended:
            return self._ended[1]
        return self._sampler.energy(self._start, time.monotonic())

    @property
    def total(self) -> RailFigures | None:
        """The figures of the rail that feeds all others: 12V on a ZCU104; None without one."""
        return self.rails.get(self._sampler.total_rail or "")

    @property
    def energy(self) -> float | None:
        """Energy of the total rail, J; None where it is not measured."""
        total = self.total
        return total.joules if total else None

    @property
    def watts(self) -> float | None:
        """Mean power of the total rail, W; None where it is not measured."""
        total = self.total
        return total.mean_w if total else None

    @property
    def source(self) -> str:
        """Name of the source; "none" where nothing is measured."""
        return self._sampler.source

    @property
    def reason(self) -> str:
        """One line: what is measured, or why nothing is."""
        return self._sampler.reason
