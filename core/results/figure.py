"""A number with its interval: the form of all results, in memory and in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tutelage.core.results.typed_json import MismatchError, decode, decode_fields

MEASURED, PREDICTED, GIVEN = "measured", "predicted", "given by the user"
CONFIDENCE = 0.95
"""Coverage of intervals."""


@dataclass(frozen=True)
class Figure:
    """A figure with its interval; in JSON an object with all of these fields.

    Attributes
    ----------
    value : the figure; None if it was not measured, or if only the range is known
    low, high : the interval's ends; None without an interval
    coverage : probability that the interval contains the true value; None if unknown, as for a
        prediction's range
    n : number of values (repetitions, sections of a window) behind the figure and its interval
    unit : the unit, such as "ms"
    kind : "measured" if it was timed or read from a sensor, else "predicted" or "given by the
        user"
    sensor_error : bound of the known errors of the readings themselves, such as their resolution,
        in addition to the interval and in the same unit; None if unknown. It does not include
        errors that are not documented, such as the tolerance of a board's shunts
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    coverage: float | None = None
    n: int = 0
    unit: str = ""
    kind: str = MEASURED
    sensor_error: float | None = None

    @classmethod
    def around(
        cls, value: float | None, half_width: float | None = None, unit: str = "", n: int = 1
    ) -> Figure:
        """Return a measured figure with a symmetric 95 % interval, or without one."""
        if value is None:
            return cls(unit=unit)
        if half_width is None:
            return cls(value, n=1, unit=unit)
        return cls(value, value - half_width, value + half_width, CONFIDENCE, n, unit)

    @classmethod
    def predicted(cls, value: float | None, low: float, high: float, unit: str) -> Figure:
        """Return a prediction with the range of its known errors, of unknown coverage."""
        return cls(value, low, high, None, 1, unit, PREDICTED)

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval, None without an interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def ends(self) -> tuple[float | None, float | None, float | None]:
        """Value, low and high: the arguments of `tutelage.core.digits.with_range`."""
        return self.value, self.low, self.high

    def scaled(self, factor: float, unit: str) -> Figure:
        """Return the figure multiplied by `factor`, which is above 0, in another unit."""
        value, low, high, error = (
            None if each is None else factor * each for each in (*self.ends, self.sensor_error)
        )
        return Figure(value, low, high, self.coverage, self.n, unit, self.kind, error)

    @classmethod
    def from_json(cls, value: object, place: str) -> Figure:
        """Decode a figure from JSON, see `tutelage.core.results.typed_json`.

        Files of earlier versions have a plain number, or value, ci95 (half the interval) and
        sensor_error.
        """
        if not isinstance(value, dict):
            return cls.around(decode(float | None, value, place))
        if "value" not in value:
            raise MismatchError(f"{place or 'it'} lacks 'value'")
        found: Figure = decode_fields(cls, value, place)
        if "ci95" in value:
            half = decode(float | None, value["ci95"], f"{place}.ci95")
            old = cls.around(found.value, half)
            return cls(*old.ends, old.coverage, old.n, sensor_error=found.sensor_error)
        if (found.low is None) != (found.high is None):
            raise MismatchError(f"{place or 'it'} has only one end of an interval")
        return found


def as_json(results: Any) -> dict[str, Any]:
    """Return a dataclass of results as a JSON object, with figures as objects."""
    return asdict(results)
