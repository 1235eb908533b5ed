"""The checksums file beside an overlay's files: written by the workstation, read on the board.

[files]
"dpu.bit" = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"    # SHA-256
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tutelage.core.files import write_file
from tutelage.core.toml_file import TomlError, read_toml, to_toml

PINS = "sha256.toml"
"""Name of the checksums file."""


def read_pins(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; empty if there is no checksums file.

    Raises
    ------
    TomlError
        The file exists but is not a table of checksums.
    """
    if not path.exists():
        return {}
    files = read_toml(path).get("files")
    if not files or not isinstance(files, dict):
        raise TomlError(f"{path}: has no table [files]; `tutelage overlay` creates it")
    if not all(isinstance(text, str) for text in files.values()):
        raise TomlError(f"{path}: [files] is not a table of checksums")
    return files


def write_pins(path: Path, pins: Mapping[str, str], comment: str) -> None:
    """Write a checksums file atomically, with a comment line at its top.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    write_file(path, f"# {comment}\n{to_toml({'files': pins})}")
