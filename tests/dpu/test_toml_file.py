"""The one reader of TOML."""

from __future__ import annotations

import pytest

from tutelage.core.toml_file import parse_toml


def test_whole_numbers_have_64_bits_as_toml_says() -> None:
    """Larger ones once came as far as float(), which fails on them."""
    assert parse_toml(f"a = [{-(1 << 63)}, {(1 << 63) - 1}]")["a"] == [-(1 << 63), (1 << 63) - 1]
    for number in (1 << 63, -(1 << 63) - 1, 10**400):
        with pytest.raises(ValueError, match="64 bits"):
            parse_toml(f"[t]\na = [{{b = [{number}]}}]")
