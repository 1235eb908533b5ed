"""Check that a model was compiled for the loaded DPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tutelage.board import runner
from tutelage.board.overlay.site import OverlaySite
from tutelage.core.errors import OverlayError

QUERY = ("xdputil", "query")
"""AMD's tool (UG1414) that prints the fingerprint of the loaded DPU."""
_QUERY_SECONDS = 20


@dataclass(frozen=True)
class ModelFile:
    """A model's .xmodel file, and the file with its custom CPU operators, if any."""

    path: Path
    plugin: Path | None = None


def query_fingerprint() -> int | None:
    """Return the fingerprint of the loaded DPU from AMD's xdputil; None if unknown.

    An overlay must be loaded, and vart.conf correct. The output format of xdputil is unverified:
    any "fingerprint" followed by a hexadecimal number is accepted.
    """
    program = shutil.which(QUERY[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *QUERY[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_QUERY_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode(errors="replace")
    found = re.search(r"fingerprint\W{0,8}?0x([0-9a-f]{1,16})\b", text, re.IGNORECASE)
    return int(found[1], 16) if found and done.returncode == 0 else None


def check_model(site: OverlaySite, file: ModelFile, queried: int | None = None) -> str:
    """Check that a model was compiled for the overlay's DPU.

    Parameters
    ----------
    queried : fingerprint reported by the DPU itself; None for the profile's

    Returns
    -------
    A line with the DPU that the model was compiled for

    Raises
    ------
    OverlayError
        The model was compiled for another DPU, or cannot be loaded.
    """
    try:
        model = runner.load(file.path, file.plugin)
    except runner.ModelError as error:
        raise OverlayError(str(error)) from error
    path, own = file.path, site.overlay.fingerprint if queried is None else queried
    if model.fingerprint is None:
        raise OverlayError(f"{path}: has no dpu_fingerprint; it was compiled for {model.target}")
    if own is None:
        return f"{path}: compiled for {model.target}; the DPU's own fingerprint is not known"
    if model.fingerprint != own:
        raise OverlayError(
            f"{path}: compiled for {model.target} ({model.fingerprint:#x}), the DPU is {own:#x}; "
            "compile it for this overlay's release of Vitis AI"
        )
    return f"{path}: compiled for this DPU ({own:#x})"
