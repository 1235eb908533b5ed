"""The model of a release: its path, its original name and its operators for the CPU."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tutelage.core.locations import CODE, DEMO_MODEL
from tutelage.core.model_package import COMPILED

MODEL_NAME_FILE = "model.txt"
"""File of a release that contains the original name of its model's directory."""

PLUGIN_FILE = "plugin.py"
"""A release's file of operators for the CPU, if its model has any."""

_FOLDER = CODE / "model"


def model_name(folder: Path) -> str:
    """Return the name of a model's directory; in a release, its name before deployment."""
    folder = folder.resolve()
    if folder == _FOLDER:
        with suppress(OSError):
            return (CODE / MODEL_NAME_FILE).read_text(encoding="utf-8").removesuffix("\n")
    return folder.name


def default_model() -> Path:
    """Return the model to use if none is given: in a release the deployed one, else the demo's."""
    if not (CODE / MODEL_NAME_FILE).is_file():
        return DEMO_MODEL
    if (_FOLDER / COMPILED).exists():
        return _FOLDER
    return next(iter(sorted(_FOLDER.glob("*.xmodel"))), DEMO_MODEL)


def plugin_of(model: Path) -> Path | None:
    """Return the operators for the CPU that were deployed with a model; None if there are none."""
    plugin, model = CODE / PLUGIN_FILE, model.resolve()
    return plugin if _FOLDER in (model, model.parent) and plugin.is_file() else None
