"""Where `vart` and `xir` come from: the board's own modules, else the emulation."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

# AMD's board images keep vart and xir here, which is not on the path of PYNQ's Python.
IMAGE_SITE_PACKAGES = "/usr/lib/python3/site-packages"


@dataclass(frozen=True)
class Provider:
    """The pair of modules that run models.

    Attributes
    ----------
    xir, vart : modules with AMD's Python API
    is_emulation : False where they are the board's own
    text : one line for the user, e.g. "DPU (vart from /usr/lib/python3/site-packages)"
    pace : what gives jobs their time where that is not hardware, in words; "" where nothing says
    """

    xir: ModuleType
    vart: ModuleType
    is_emulation: bool
    text: str
    pace: str = ""


@cache
def find_provider() -> Provider:
    """Return the real modules where they import, else the emulation.

    Nothing of the emulation is imported where the real modules are there. A board whose
    modules are present but do not load also gets the emulation, and its text says why.

    Raises
    ------
    ImportError
        Neither pair can be imported.
    """
    try:
        xir, vart = _import_real()
    except ModuleNotFoundError as error:
        if error.name not in ("xir", "vart"):
            return _emulation(f"vart/xir do not load: {error}")
        return _emulation("no vart/xir on this machine")
    except ImportError as error:
        return _emulation(f"vart/xir do not load: {error}")
    # In place of the real ones by `tutelage shim`, or on a stand-in board.
    pace = str(getattr(vart, "TUTELAGE_PACE", ""))
    if getattr(vart, "TUTELAGE_EMULATION", False):
        return Provider(xir, vart, True, "emulation (in place of vart/xir)", pace)
    folder = Path(getattr(vart, "__file__", None) or "built-in").parent
    return Provider(xir, vart, False, f"DPU (vart from {folder})", pace)


def _import_real() -> tuple[ModuleType, ModuleType]:
    try:
        return import_module("xir"), import_module("vart")
    except ModuleNotFoundError as error:
        if error.name not in ("xir", "vart"):
            raise
    # At the end of the path: the image's folder must not shadow the venv's packages.
    sys.path.append(IMAGE_SITE_PACKAGES)
    try:
        return import_module("xir"), import_module("vart")
    except ImportError:
        sys.path.remove(IMAGE_SITE_PACKAGES)
        raise


def _emulation(reason: str) -> Provider:
    xir, vart = (
        import_module("tutelage.dpu.runtime.xir"),
        import_module("tutelage.dpu.runtime.vart"),
    )
    return Provider(xir, vart, True, f"emulation ({reason})")
