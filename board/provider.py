"""Selection of the `vart` and `xir` modules: the board's own, or else the emulation's."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

# The directory of vart and xir in AMD's board images, which is not on the path of PYNQ's Python.
IMAGE_SITE_PACKAGES = "/usr/lib/python3/site-packages"


@dataclass(frozen=True)
class Provider:
    """The pair of modules that run models.

    Attributes
    ----------
    xir, vart : modules with AMD's Python API
    is_emulation : whether they are the emulation's, not the board's own
    text : description, e.g. "DPU (vart from /usr/lib/python3/site-packages)"
    pace : description of the source of job times if it is not hardware; "" if unknown
    """

    xir: ModuleType
    vart: ModuleType
    is_emulation: bool
    text: str
    pace: str = ""


@cache
def find_provider() -> Provider:
    """Return the real modules if they can be imported, or else the emulation.

    With the real modules, nothing of the emulation is imported. If the modules are installed but do
    not load, the emulation is used and its text gives the reason.

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
    # `tutelage shim` and the simulated board replace the real modules.
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
    # At the end of the path, so that the image's folder does not shadow the venv's packages.
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
