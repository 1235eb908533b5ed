"""TOML files, read the same way on Python 3.10 (tomli) and later (tomllib)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # the board's Python 3.10
    import tomli as tomllib


class TomlError(Exception):
    """A TOML file that cannot be read; the text is one line that names the file."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    TomlError
        The file is missing, not UTF-8 or not TOML.
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TomlError(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TomlError(f"{path}: not a TOML file: {error}") from error
    return table
