"""TOML: a single reader, which reads written values back unchanged."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.core.toml_file import parse_toml, read_toml, to_toml

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_PLAIN = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(datetime.timezone.utc))
    | st.times()
)
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_round_trip(table: dict[str, Any]) -> None:
    read = parse_toml(to_toml(table))
    assert read == table
    # repr distinguishes True from 1, and the fold of a time, which TOML lacks.
    wanted = repr({key: table[key] for key in read}).replace(", fold=1", "")
    assert repr(read).replace(", fold=1", "") == wanted


def test_tables_are_sections_behind_plain_values() -> None:
    text = to_toml({"a": {"x y": [1.5, True]}, "b": 1, "c": {"d": {"e": "f"}}})
    assert text == 'b = 1\n\n[a]\n"x y" = [1.5, true]\n\n[c]\nd = { e = "f" }\n'


def test_values_that_toml_does_not_have() -> None:
    with pytest.raises(TypeError, match="TOML does not support NoneType"):
        to_toml({"a": None})


def test_whole_numbers_have_64_bits_as_toml_says() -> None:
    """Larger numbers used to reach float(), which fails on them."""
    assert parse_toml(f"a = [{-(1 << 63)}, {(1 << 63) - 1}]")["a"] == [-(1 << 63), (1 << 63) - 1]
    for number in (1 << 63, -(1 << 63) - 1, 10**400):
        with pytest.raises(ValueError, match="64 bits"):
            parse_toml(f"[t]\na = [{{b = [{number}]}}]")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """As some editors write it."""
    file = tmp_path / "run.toml"
    file.write_bytes(b'\xef\xbb\xbfmethod = "ptq"\n')
    assert read_toml(file) == {"method": "ptq"}
