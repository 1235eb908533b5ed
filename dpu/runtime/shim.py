"""Run an unmodified script for the board, or for AMD's quantiser, on the emulation.

Stand-ins with the names of the board's modules are in folders that are added to Python's path:
`vart`, `xir`, `runner`, `vitis_ai_library` and `pynq_dpu` in dpu/runtime/stand_ins, `pynq` in
board/stand_ins, beside the sensors that it reads, and AMD's quantiser, `pytorch_nndct`, in
host/stand_ins. Nothing in dpu/ imports the latter two.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.core.errors import DpuError

_HERE = Path(__file__).resolve().parent
_TOP = _HERE.parent.parent
STAND_INS = (_HERE / "stand_ins", _TOP / "board" / "stand_ins", _TOP / "host" / "stand_ins")
"""Folders of stand-in modules with the names of AMD's."""

_INSTALLED = ("site-packages", "dist-packages")
"""Names of folders that package managers install into."""


def install() -> None:
    """Make the stand-ins importable in this process, for example in a notebook's first cell.

    Their folders are inserted right before the installed packages: a module with the same name
    beside the script or notebook, or in a folder of PYTHONPATH, takes precedence over a stand-in,
    which takes precedence over an installed package.
    """
    folders = [str(folder) for folder in STAND_INS]
    path = [entry for entry in sys.path if entry not in folders]
    installed = [place for place, entry in enumerate(path) if Path(entry).name in _INSTALLED]
    place = installed[0] if installed else len(path)
    sys.path[:] = path[:place] + folders + path[place:]


def prepare(script: str, arguments: Sequence[str]) -> None:
    """Set up `sys.argv`, `sys.path` and the stand-ins for `python script arguments`.

    Raises
    ------
    DpuError
        There is no such script.
    """
    if not Path(script).is_file():
        raise DpuError(f"{script}: no such script")
    folder = str(Path(script).resolve().parent)
    sys.argv = [script, *arguments]
    sys.path.insert(0, folder)
    install()


def run(script: str) -> None:
    """Run a script after `prepare`; its exceptions propagate."""
    runpy.run_path(script, run_name="__main__")
