"""Find the name of a model's directory, even in a release, where it is called `model`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tutelage.core.locations import CODE

MODEL_NAME_FILE = "model.txt"
"""File of a release that contains the original name of its model's directory."""


def model_name(folder: Path) -> str:
    """Return the name of a model's directory; in a release, its name before deployment."""
    folder = folder.resolve()
    if folder == CODE / "model":
        with suppress(OSError):
            return (CODE / MODEL_NAME_FILE).read_text(encoding="utf-8").removesuffix("\n")
    return folder.name
