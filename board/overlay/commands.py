"""The commands `check` and `load` of the overlay."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from tutelage.board.overlay.model_fit import QUERY, ModelFile, check_model, query_fingerprint
from tutelage.board.overlay.site import OverlaySite
from tutelage.board.overlay.system_files import check_files, check_firmware, install_firmware
from tutelage.board.overlay.vart_config import check_config
from tutelage.core.board_profile import Hazard, hazards_here
from tutelage.core.errors import OverlayError, one_line
from tutelage.core.text import shown


def check(site: OverlaySite, model: ModelFile | None = None, fix: bool = False) -> bool:
    """Print the state of files, configuration, firmware and model, without touching the hardware.

    Parameters
    ----------
    fix : repair vart.conf

    Returns
    -------
    Whether there is no fault
    """
    steps: list[tuple[str, Any]] = [
        ("files", lambda: check_files(site)),
        ("config", lambda: check_config(site, fix)),
        ("firmware", lambda: check_firmware(site)),
    ]
    if model is not None:
        steps.append(("model", lambda: check_model(site, model)))
    well = True
    for name, step in steps:
        try:
            _say(name, step())
        except OverlayError as error:
            well = False
            _say(name, f"WRONG: {error}")
    for hazard in hazards_here(site.profile, site.root):
        _say("hazard", _advice(hazard))
    return well


def load(site: OverlaySite, model: ModelFile | None = None, fix: bool = False) -> None:
    """Load the overlay and install its firmware, after checking everything.

    A loaded overlay may be loaded again, which resets the DPU: no job may be running.

    Raises
    ------
    OverlayError
        The user is not root, a check fails, or pynq does not load the bitstream.
    """
    if os.geteuid() != 0:
        raise OverlayError("loading needs root; run sudo su, source PYNQ's profile, and try again")
    _say("files", check_files(site))
    if model is not None:
        _say("model", check_model(site, model))
    _say("config", check_config(site, fix))
    _load_bitstream(site.folder / site.overlay.bitstream)
    _say("overlay", f"{site.overlay.release}: loaded")
    _say("firmware", install_firmware(site))
    _check_loaded(site, model)
    for hazard in hazards_here(site.profile, site.root):
        _say("hazard", _advice(hazard))


def _load_bitstream(path: Path) -> None:
    try:
        pynq = import_module("pynq")
    except ImportError as error:
        raise OverlayError(f"pynq cannot be imported ({error}); use PYNQ's own Python") from error
    try:
        pynq.Overlay(str(path.absolute()))
    except Exception as error:  # pynq's errors have no common base
        raise OverlayError(f"{path}: pynq does not load it: {one_line(error)}") from error


def _check_loaded(site: OverlaySite, model: ModelFile | None) -> None:
    queried = query_fingerprint()
    if queried is None:
        return
    _say("dpu", f"fingerprint {queried:#x}, by {' '.join(QUERY)}")
    expected = site.overlay.fingerprint
    if model is not None:
        check_model(site, model, queried)
    elif expected is not None and queried != expected:
        raise OverlayError(
            f"the DPU has fingerprint {queried:#x}, but {site.overlay.release} has {expected:#x}: "
            "the files are of another overlay"
        )


def _say(name: str, text: str) -> None:
    print(f"{name:<10} {shown(text)}", flush=True)


def _advice(hazard: Hazard) -> str:
    limit = "" if hazard.threads is None else f" (app/classify.py --threads {hazard.threads})"
    return f"{hazard.name}: {hazard.text}; {hazard.remedy}{limit}"
