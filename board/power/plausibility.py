"""Selection of a rail's reading: its power, its volts times amperes, or neither.

A power monitor can report 0 W, or any other power, beside a correct voltage and current: its power
register needs a calibration that the driver may not have written. A reading is therefore compared
with volts times amperes if these are plausible, and with the least power of the board
(core/profiles).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tutelage.core.board_profile import Profile, RailProfile

# A finding counts after this many repetitions, since a load can change between two readings.
TIMES = 5
# A current above this multiple of the rail's maximum is implausible.
FAR_ABOVE = 1.5
_SAME_SHUNT = 0.01  # relative

POWER, PRODUCT, NOTHING = "power", "volts times amperes", "nothing"
"""The reading of a rail that is used."""
_LOW = "power, although it is low"


class Doubt(NamedTuple):
    """A doubt about a rail's readings; the text is one line that begins with the rail's name."""

    rail: str
    text: str


class Belief:
    """Plausibility check of a rail's readings.

    Parameters
    ----------
    profile, rail : profiles of the board and of the rail
    sensor : description of the sensor, for messages
    shunt_ohms : resistance of the shunt that the driver assumes, ohms; None if unknown

    Attributes
    ----------
    basis : the reading to use: POWER, PRODUCT or NOTHING. If the rail has no power reading of its
        own, POWER is the product too
    doubts : all doubts so far
    """

    def __init__(
        self, profile: Profile, rail: RailProfile, sensor: str, shunt_ohms: float | None = None
    ) -> None:
        self._rail, self._sensor, self._tolerance = rail, sensor, profile.power_tolerance
        self._idle = profile.idle_watts if rail.name == profile.total_rail else None
        self._finding = self._next = self.basis = POWER
        self._times = 0
        self._reported: set[str] = set()  # findings that are among the doubts
        self.doubts: list[Doubt] = []
        right = rail.shunt_ohms
        self._fixed = bool(shunt_ohms and right and abs(shunt_ohms / right - 1) > _SAME_SHUNT)
        if self._fixed:
            self.basis = NOTHING
            self._doubt(
                f"the driver assumes a shunt of {1e6 * (shunt_ohms or 0):.0f} microohms, the "
                f"board's has {1e6 * (right or 0):.0f}: amperes and watts are wrong by that "
                "factor, so the rail is not measured; fix shunt-resistor in the device tree"
            )

    def look(self, volts: float, amps: float, watts: Sequence[float]) -> bool:
        """Check readings; return whether `basis` has changed.

        Parameters
        ----------
        volts, amps : voltage, V, and current, A; NaN if not measured
        watts : power readings before and after them, W; empty if the rail has none
        """
        known = [value for value in watts if math.isfinite(value)]
        product = volts * amps
        if self._fixed or not (known or (not watts and math.isfinite(product))):
            return False
        finding = self._find(self._plausible(volts, amps), known or [product], bool(watts))
        if finding != self._next:
            self._next, self._times = finding, 0
        self._times += 1
        if self._times < TIMES or finding == self._finding:
            return False
        self._finding, before = finding, self.basis
        self.basis = POWER if finding == _LOW else finding
        if finding not in (POWER, *self._reported):
            self._reported.add(finding)
            text = self._text(finding, volts, amps, (known or [product])[0], bool(watts))
            self._doubt(f"{text}; {self._advice()}")
        return self.basis != before

    def _plausible(self, volts: float, amps: float) -> float:
        """Return volts times amperes, W; NaN if they are implausible for this rail."""
        rail = self._rail
        near = abs(volts - rail.volts) <= self._tolerance * rail.volts
        return volts * amps if near and 0 <= amps <= FAR_ABOVE * rail.max_amps else math.nan

    def _find(self, product: float, watts: Sequence[float], own: bool) -> str:
        """Return the finding of these readings. `own`: the rail has a power reading."""
        rail, low, high = self._rail, min(watts), max(watts)
        allowed = rail.step_watts + self._tolerance * max(abs(product), abs(high))
        far = product < low - allowed or product > high + allowed  # NaN is not
        if (own and far) or high < rail.least_watts:
            return PRODUCT if own and product >= rail.least_watts else NOTHING
        if self._idle is not None and high < (1 - self._tolerance) * self._idle:
            return _LOW
        return POWER

    def _text(self, finding: str, volts: float, amps: float, watts: float, own: bool) -> str:
        """Return the message of a finding: reading, expected value and consequence."""
        product, power = f"{_short(volts)} V x {_short(amps)} A", f"{_short(volts * amps)} W"
        read = f"reads {_short(watts)} W" if own else f"reads {product}"
        if not math.isnan(volts * amps):
            read += f" ({product} is {power})" if own else f", which is {power}"
        idle = "" if self._idle is None else f"{_short(self._idle)} W at rest, as published"
        if finding == PRODUCT:
            return f"{read}: the product is used instead of the reading"
        if finding == _LOW:
            return f"{read}, but the board takes {idle}: the reading is used anyway"
        if self._rail.least_watts:
            least = f"at least {_short(self._rail.least_watts)} W are expected"
            return f"{read}; {least} ({idle}): the rail is not measured"
        return f"{read}: the rail is not measured"

    def _advice(self) -> str:
        right = self._rail.shunt_ohms
        shunt = f" and its shunt-resistor ({1e6 * right:.0f} microohms)" if right else ""
        return f"check the {self._rail.driver}'s driver in dmesg, its calibration{shunt}"

    def _doubt(self, text: str) -> None:
        self.doubts.append(Doubt(self._rail.name, f"{self._rail.name}: {self._sensor} {text}"))


def _short(value: float) -> str:
    return f"{value:.4g}" if value else "0"
