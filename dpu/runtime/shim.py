"""Runs a script written for the board, or for AMD's quantiser, unmodified, on the emulation.

Stand-ins under the names of the board's modules are in folders that go onto Python's path: those of
`vart`, `xir`, `runner`, `vitis_ai_library` and `pynq_dpu` in dpu/runtime/stand_ins, that of `pynq`
beside the sensors that it reads, in board/stand_ins, and that of AMD's quantiser, `pytorch_nndct`,
in host/stand_ins. Nothing of dpu/ imports the latter two.
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
"""Folders of modules with the names of AMD's."""

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
        There is no such script.
    """
    if not Path(script).is_file():
        raise DpuError(f"{script}: no such script")
    folder = str(Path(script).resolve().parent)
    sys.argv = [script, *arguments]
    sys.path.insert(0, folder)
    install()


def run(script: str) -> None:
    """Run a script that `prepare` was called for; what it raises comes out of here."""
    runpy.run_path(script, run_name="__main__")
