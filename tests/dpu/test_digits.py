"""Laws of the numbers in tables."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.digits import digits, fixed, with_range, with_spread

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15)
NUMBER = r"-?\d{1,3}(,\d{3})*(\.\d+)?"


@given(NUMBERS, st.integers(1, 6))
def test_digits_are_close_and_plain(value: float, significant: int) -> None:
    text = digits(value, significant)
    assert re.fullmatch(NUMBER, text) and not re.fullmatch(r"-[0.]*", text)
    found = float(text.replace(",", ""))
    assert found == pytest.approx(value, rel=0.5001 * 10.0 ** (1 - significant), abs=0.5001e-9)
    if abs(value) > 1e-3 and "." in text:
        assert len(text.strip("-0.").replace(".", "").replace(",", "")) <= significant


@given(NUMBERS, st.integers(0, 9))
def test_zero_has_no_sign(value: float, places: int) -> None:
    text = fixed(value, places)
    assert text.startswith("-") == (float(text.replace(",", "")) < 0)


@given(NUMBERS, st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_ranges_and_spreads(value: float, below: float, above: float) -> None:
    text = with_range(value, value - below, value + above)
    assert re.fullmatch(rf"{NUMBER}( \({NUMBER} to {NUMBER}\))?", text)
    assert re.fullmatch(rf"{NUMBER} ±{NUMBER}", with_spread(value, below))


def test_examples() -> None:
    assert [digits(x) for x in (None, math.nan, -0.0, -0.00000000001, 12345, 12345.6, 1.5)] == [
        "-", "-", "0", "0", "12,345", "12,346", "1.5"]  # fmt: skip
    assert digits(0.0123456) == "0.01235" and digits(1e-5, 3) == "0.00001"
    assert with_range(1.2345, 1.2, 1.31) == "1.23 (1.20 to 1.31)"
    assert with_range(1.5, None, None) == "1.5" and with_range(None, 1, 2) == "-"
    assert with_spread(12.3412, 0.0512) == "12.341 ±0.051" and with_spread(2.0, 0) == "2 ±0"
    assert with_spread(-0.0001, 0.5) == "0.00 ±0.50"
