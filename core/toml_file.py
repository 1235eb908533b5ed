"""Read and write TOML, on Python 3.10 (with tomli) and later (with tomllib)."""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.core.files import read_bounded

if sys.version_info >= (3, 11):
    import tomllib
else:  # the board's Python 3.10
    import tomli as tomllib

MAX_TOML_BYTES = 1 << 20
"""Largest TOML file that is read: a model with a thousand labels takes 30 KB."""


class TomlError(DpuError):
    """A TOML file cannot be read; the message is one line that names the file."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    TomlError
        The file is missing, larger than `MAX_TOML_BYTES`, not UTF-8 or not TOML.
    """
    try:
        data = read_bounded(path, MAX_TOML_BYTES)
    except OSError as error:
        raise TomlError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_TOML_BYTES:
        raise TomlError(f"{path}: larger than the limit of {MAX_TOML_BYTES >> 10} KiB")
    try:
        return parse_toml(data.decode("utf-8-sig").replace("\r\n", "\n"))
    except ValueError as error:
        raise TomlError(f"{path}: not a TOML file: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of TOML text.

    Raises
    ------
    ValueError
        The text is not TOML, is nested too deeply, or has an integer of more than 64 bits (TOML
        1.0 requires an error; Python accepts it, and float() fails later).
    """
    try:
        table = tomllib.loads(text)
        _check_numbers(table)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return table


def parse_value(text: str) -> Any:
    """Parse a value in TOML syntax, as on a command line; a bare word is a string."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _check_numbers(value: Any) -> None:
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("an integer of more than 64 bits")
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)


def to_toml(table: Mapping[str, Any]) -> str:
    """Return a table as TOML: one [section] per top-level table, nested tables inline.

    Raises
    ------
    TypeError
        A value has a type that TOML does not support.
    """
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    parts = [_pairs(plain)] if plain else []
    for key, value in table.items():
        if isinstance(value, Mapping):
            parts.append(f"[{_key(key)}]\n{_pairs(value)}")
    return "\n".join(parts)


def _pairs(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # JSON's escapes are valid TOML, except that JSON does not escape DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    raise TypeError(f"TOML does not support {type(value).__name__}")
