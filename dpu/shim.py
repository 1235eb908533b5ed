"""Runs a script written for the board, unmodified, on the emulation.

Stand-ins under the names of the board's modules are in folders that go onto Python's path: those of
`vart`, `xir`, `runner`, `vitis_ai_library` and `pynq_dpu` in dpu/stand_ins, that of `pynq` beside
the sensors that it reads, in board/stand_ins. Nothing of dpu/ imports the latter.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from dpu.errors import DpuError

_HERE = Path(__file__).resolve().parent
STAND_INS = (_HERE / "stand_ins", _HERE.parent / "board" / "stand_ins")
"""Folders of modules with the names of the board's."""


def install() -> None:
    """Make the stand-ins importable in this process; in Jupyter a notebook's first cell does this.

    They come right behind the first entry of Python's path, which is the script's or the notebook's
    own directory: a module of that name there is the one that is imported, and installed packages
    of these names are not.
    """
    folders = [str(folder) for folder in STAND_INS]
    sys.path[:] = [entry for entry in sys.path if entry not in folders]
    sys.path[1:1] = folders


def run_script(script: str, arguments: Sequence[str]) -> None:
    """Run a Python script as `python script arguments` would, with the stand-ins in place.

    What the script raises, SystemExit included, comes out of here.

    Raises
    ------
    DpuError
        There is no such script.
    """
    if not Path(script).is_file():
        raise DpuError(f"{script}: no such script")
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    install()
    runpy.run_path(script, run_name="__main__")
