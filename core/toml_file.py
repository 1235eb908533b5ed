"""TOML files, read the same way everywhere, on Python 3.10 (tomli) and later (tomllib)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the board's Python 3.10
    import tomli as tomllib

MAX_TOML_BYTES = 1 << 20
"""Largest TOML file that is read: a model with a thousand labels has 30 KB."""


class TomlError(DpuError):
    """A TOML file that cannot be read; the text is one line that names the file."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    TomlError
        The file is missing, larger than `MAX_TOML_BYTES`, not UTF-8 or not TOML.
    """
    try:
        with path.open("rb") as file:
            # One byte more tells what is too large, also where no size is known (/dev/zero).
            data = file.read(MAX_TOML_BYTES + 1)
    except OSError as error:
        raise TomlError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_TOML_BYTES:
        raise TomlError(f"{path}: larger than {MAX_TOML_BYTES >> 10} KiB, refused")
    try:
        return parse_toml(data.decode("utf-8").replace("\r\n", "\n"))
    except ValueError as error:
        raise TomlError(f"{path}: not a TOML file: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of TOML text.

    Raises
    ------
    ValueError
        It is no TOML, nested too deeply, or holds a whole number of more than 64 bits (which TOML
        1.0 tells readers to refuse; Python takes it, and float() then fails).
    """
    try:
        table = tomllib.loads(text)
        _check_numbers(table)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return table


def _check_numbers(value: Any) -> None:
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise ValueError("a whole number of more than 64 bits")
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
