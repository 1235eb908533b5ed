"""Runs a script written for the board, unmodified, on the emulation."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from dpu import vart, xir
from dpu.errors import DpuError


def install() -> None:
    """Make ``import xir`` and ``import vart`` find the emulation in this process."""
    sys.modules["xir"], sys.modules["vart"] = xir, vart


def run_script(script: str, arguments: Sequence[str]) -> None:
    """Run a Python script as `python script arguments` would, with the emulation in place.

    What the script raises, SystemExit included, comes out of here.

    Raises
    ------
    DpuError
        There is no such script.
    """
    if not Path(script).is_file():
        raise DpuError(f"{script}: no such script")
    install()
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")
