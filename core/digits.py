"""Formatting of numbers in tables and messages: sensible digits, no exponent, no "-0.000"."""

from __future__ import annotations

import math

MOST_PLACES = 9
"""Most digits after the decimal point; smaller numbers are shown as 0."""


def fixed(value: float, places: int) -> str:
    """Return a number with `places` digits after the point; one that rounds to 0 has no sign."""
    text = f"{value:,.{places}f}"
    return text if text.strip("-0.,") else text.lstrip("-")


def digits(value: float | None, significant: int = 4) -> str:
    """Return a number with `significant` significant digits, without trailing zeros.

    Integers keep all their digits; None, NaN and infinity are shown as "-".

    >>> digits(0.0123456), digits(1234.5678), digits(123456), digits(-1e-12), digits(None)
    ('0.01235', '1,235', '123,456', '0', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    text = fixed(value, _places(value, significant))
    return text.rstrip("0").rstrip(".") if "." in text else text


def with_range(value: float | None, low: float | None, high: float | None) -> str:
    """Return "1.23 (1.20 to 1.31)", with as many digits as the width of the range justifies."""
    if value is None or low is None or high is None or not high > low:
        return digits(value)
    places = min(6, _places(high - low, 2))
    return f"{fixed(value, places)} ({fixed(low, places)} to {fixed(high, places)})"


def with_spread(value: float | None, half: float | None) -> str:
    """Return "12.34 ±0.05", with as many digits as the half interval justifies."""
    if value is None or half is None:
        return digits(value)
    if not half > 0:
        return f"{digits(value)} ±0"
    places = min(6, _places(half, 2))
    return f"{fixed(value, places)} ±{fixed(half, places)}"


def _places(value: float, significant: int) -> int:
    """Return the digits after the point that give `significant` significant digits."""
    if not value:
        return 0
    return min(MOST_PLACES, max(0, significant - 1 - math.floor(math.log10(abs(value)))))
