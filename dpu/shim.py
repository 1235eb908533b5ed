"""Runs a script written for the board, unmodified, on the emulation.

Stand-ins under the names of the board's modules are in folders that go onto Python's path: those of
`vart`, `xir`, `runner`, `vitis_ai_library` and `pynq_dpu` in dpu/stand_ins, that of `pynq` beside
the sensors that it reads, in board/stand_ins. Nothing of dpu/ imports the latter.
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from dpu.errors import DpuError

_HERE = Path(__file__).resolve().parent
STAND_INS = (_HERE / "stand_ins", _HERE.parent / "board" / "stand_ins")
"""Folders of modules with the names of the board's."""

_INSTALLED = ("site-packages", "dist-packages")
"""Names of the folders that package managers install into."""


def install() -> None:
    """Make the stand-ins importable in this process; in Jupyter a notebook's first cell does this.

    They come right before the installed packages: a module of that name beside the script or the
    notebook, or in a folder of PYTHONPATH, is the one that is imported, and an installed package is
    not.
    """
    folders = [str(folder) for folder in STAND_INS]
    path = [entry for entry in sys.path if entry not in folders]
    installed = [place for place, entry in enumerate(path) if Path(entry).name in _INSTALLED]
    place = installed[0] if installed else len(path)
    sys.path[:] = path[:place] + folders + path[place:]


def prepare(script: str, arguments: Sequence[str]) -> None:
    """Make `sys.argv`, `sys.path` and the modules what `python script arguments` would find.

    Raises
    ------
    DpuError
        There is no such script, or a package beside it is called `dpu`.
    """
    if not Path(script).is_file():
        raise DpuError(f"{script}: no such script")
    folder = str(Path(script).resolve().parent)
    _give_way(folder)
    sys.argv = [script, *arguments]
    sys.path.insert(0, folder)
    install()


def run(script: str) -> None:
    """Run a script that `prepare` was called for; what it raises comes out of here."""
    runpy.run_path(script, run_name="__main__")


def _give_way(folder: str) -> None:
    """Leave the name `dpu` to a module in `folder`.

    The emulation's own modules stay loaded under their full names, all of them, as some are
    imported inside functions: `from dpu.fast import FastEngine` finds `dpu.fast` without `dpu`.
    """
    found = _elsewhere("dpu", [folder])
    if found is None:
        return
    if found.submodule_search_locations is not None:
        text = "a package beside a script cannot be called dpu, as the emulation's is"
        raise DpuError(f"{found.origin}: {text}")
    for module in pkgutil.iter_modules([str(_HERE)], "dpu."):
        if module.name != "dpu.__main__":
            importlib.import_module(module.name)
    del sys.modules["dpu"]


def import_own(name: str) -> Any:
    """A module of this repository, though a script may have one with the name of its package.

    Parameters
    ----------
    name : such as "board.power"
    """
    package = name.partition(".")[0]
    if _elsewhere(package) is None:
        return importlib.import_module(name)
    before, path = sys.modules.pop(package, None), list(sys.path)
    sys.path.insert(0, str(_HERE.parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path
        sys.modules.pop(package, None)
        if before is not None:
            sys.modules[package] = before


def _elsewhere(package: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """What is found on a path in the place of a package of this repository; None: nothing is."""
    found = PathFinder.find_spec(package, path)
    if found is None or found.origin is None:
        return None
    own = _HERE.parent / package / "__init__.py"
    return None if Path(found.origin).resolve() == own else found
