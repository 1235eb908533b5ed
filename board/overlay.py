"""Load the DPU's overlay on the board, and look at what must be right before a job runs.

    python -m tutelage.board.overlay check DIR [--model net.xmodel] [--fix]  # only --fix changes it
    python -m tutelage.board.overlay load  DIR [--model net.xmodel] [--fix]   # as root

DIR holds dpu.bit, dpu.hwh and dpu.xclbin, as `tutelage overlay` leaves them. Exit status:
0 all is well, 1 something is wrong, 2 wrong use. Hazards that cannot be read off the board are
told and do not count.

Never run on a board: the tests call a stand-in of pynq in a tree of files. What `load` does is
what `DpuOverlay` of pynq-dpu 2.5.1 (dpu.py) does; it differs in that it never rewrites
/etc/vart.conf unasked.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tutelage.board import runner as dpu
from tutelage.core.board_profile import (
    DEFAULT_BOARD,
    Hazard,
    OverlayProfile,
    Profile,
    UnknownBoardError,
    hazards_here,
    load_profile,
)
from tutelage.core.files import replaced, sha256_of
from tutelage.core.overlay_pins import PINS, read_pins
from tutelage.core.text import shown
from tutelage.core.toml_file import TomlError

DONE, FAILED, WRONG_USE = 0, 1, 2

"""Checksums that `tutelage overlay` leaves beside the files."""

_BACKUP = ".before-tutelage"
_QUERY = ("xdputil", "query")  # AMD's tool (UG1414); tells the fingerprint of the DPU at work
_QUERY_SECONDS = 20
_MOST_CONFIG_BYTES = 64 * 1024


class OverlayError(Exception):
    """The overlay cannot be loaded, or must not be; the text is one line that says what to do."""


class OverlayUsageError(Exception):
    """What was asked for cannot be; the text is one line."""


@dataclass(frozen=True)
class Site:
    """A board and the place of an overlay's files.

    Attributes
    ----------
    profile : the board's
    overlay : the same board's overlay
    folder : directory with the overlay's files
    root : stands for / in all paths of the system
    """

    profile: Profile
    overlay: OverlayProfile
    folder: Path
    root: Path = Path("/")

    def system(self, path: str) -> Path:
        """A path of the board's system below `root`."""
        return self.root / path.lstrip("/")

    @property
    def firmware(self) -> Path:
        return self.system(self.overlay.firmware)

    @property
    def config(self) -> Path:
        return self.system(self.overlay.config)


@dataclass(frozen=True)
class ModelFile:
    """A model to be run: its .xmodel, and a file with its operators for the CPU, if it has any."""

    path: Path
    plugin: Path | None = None


def site_of(board: str, folder: Path, root: Path = Path("/")) -> Site:
    """The overlay of a board, whose files lie in `folder`.

    Raises
    ------
    OverlayUsageError
        There is no such board, or its profile names no overlay.
    """
    try:
        profile = load_profile(board)
    except UnknownBoardError as error:
        raise OverlayUsageError(str(error)) from error
    if profile.overlay is None:
        raise OverlayUsageError(f"the profile of the {profile.name} names no overlay")
    return Site(profile, profile.overlay, folder, root)


# -- the files --------------------------------------------------------------------------------


def check_files(site: Site) -> str:
    """See that all files are there and have the checksums that lie beside them; says what was seen.

    Raises
    ------
    OverlayError
        One is missing, empty, or not the file that was verified.
    """
    pins = _pins(site.folder / PINS)
    for name in site.overlay.files:
        path = site.folder / name
        if not path.is_file() or not _told(path, path.stat).st_size:
            raise OverlayError(
                f"{path}: missing or empty; `make overlay BOARD=...` on the workstation fetches it"
            )
        if pins and pins.get(name) != _told(path, lambda path=path: sha256_of(path)):
            raise OverlayError(f"{path}: not the file that {PINS} has the SHA-256 of; copy it anew")
    names = ", ".join(site.overlay.files)
    return f"{names}: {f'as {PINS} has them' if pins else f'there; no {PINS}, so not verified'}"


def _pins(path: Path) -> dict[str, str]:
    try:
        return read_pins(path)
    except TomlError as error:
        raise OverlayError(str(error)) from error


def _told(path: Path, action: Any) -> Any:
    """Call `action`; what the system refuses is told in one line with the path."""
    try:
        return action()
    except OSError as error:
        raise OverlayError(f"{error.filename or path}: {error.strerror or error}") from error


def check_firmware(site: Site) -> str:
    """See that the system's xclbin is the overlay's.

    Raises
    ------
    OverlayError
        It is missing or another one's.
    """
    if not site.firmware.is_file():
        raise OverlayError(f"{site.firmware}: missing; `load` installs it")
    if not _same(site.folder / site.overlay.xclbin, site.firmware):
        raise OverlayError(f"{site.firmware}: another overlay's; `load` installs this one's")
    return f"{site.firmware}: the overlay's"


def install_firmware(site: Site) -> str:
    """Put the xclbin where VART looks for it, in one step; says what was done.

    Raises
    ------
    OverlayError
        It cannot be written; what was there before stays.
    """
    source = site.folder / site.overlay.xclbin
    if site.firmware.is_file() and _same(source, site.firmware):
        return f"{site.firmware}: there already"
    _told(site.firmware, lambda: _write(site.firmware, source.read_bytes()))
    return f"{site.firmware}: installed"


def _same(one: Path, other: Path) -> bool:
    return bool(_told(other, lambda: sha256_of(one) == sha256_of(other)))


def _write(path: Path, content: bytes) -> None:
    """Write a system file so that a reader, or a cut of the power, finds the old or the new one."""
    with replaced(path, durable=True, mode=0o644) as partial:
        partial.write_bytes(content)


# -- vart.conf --------------------------------------------------------------------------------


def check_config(site: Site, fix: bool = False) -> str:
    """See that vart.conf is the one line that it must be; says what was seen or done.

    Parameters
    ----------
    fix : write a wrong file anew; what it was stays beside it, under a name that was free

    Raises
    ------
    OverlayError
        It is wrong, or cannot be read or written.
    """
    wanted = site.overlay.config_line
    found = _config_text(site.config)
    if found is not None and found.splitlines() == [wanted]:
        return f"{site.config}: {wanted}"
    what = "missing" if found is None else f"must be the one line {wanted!r}, is {_short(found)}"
    if not fix:
        raise OverlayError(f"{site.config}: {what}; it can crash the board: repair it with --fix")
    kept = "" if found is None else f"; what it was: {_keep(site.config)}"
    _told(site.config, lambda: _write(site.config, f"{wanted}\n".encode()))
    return f"{site.config}: repaired{kept}"


def _config_text(path: Path) -> str | None:
    """Return what the file holds (as much as matters), None where there is none."""
    if not path.exists():
        return None

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(_MOST_CONFIG_BYTES)

    content: bytes = _told(path, read)
    return content.decode(errors="replace")


def _short(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:100] + "...")


def _keep(path: Path) -> Path:
    """Copy a file to a free name beside it."""

    def keep() -> Path:
        for number in range(1000):
            copy = path.with_name(f"{path.name}{_BACKUP}{f'.{number}' if number else ''}")
            if not copy.exists():
                _write(copy, path.read_bytes())
                return copy
        raise OSError(f"{path}: has a thousand backups")

    kept: Path = _told(path, keep)
    return kept


# -- the model --------------------------------------------------------------------------------


def query_fingerprint() -> int | None:
    """Ask AMD's xdputil for the fingerprint of the DPU that is loaded; None where it does not tell.

    Only to be called with an overlay loaded and a right vart.conf. What xdputil prints was never
    seen here: any "fingerprint" with a hexadecimal number is taken.
    """
    program = shutil.which(_QUERY[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *_QUERY[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_QUERY_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode(errors="replace")
    found = re.search(r"fingerprint\W{0,8}?0x([0-9a-f]{1,16})\b", text, re.IGNORECASE)
    return int(found[1], 16) if found and done.returncode == 0 else None


def check_model(site: Site, file: ModelFile, queried: int | None = None) -> str:
    """See that a model was compiled for the overlay's DPU; says for which it was.

    Parameters
    ----------
    queried : fingerprint that the DPU itself told; else the profile's is taken

    Raises
    ------
    OverlayError
        It was compiled for another DPU, or cannot be loaded.
    """
    try:
        model = dpu.load(file.path, file.plugin)
    except dpu.ModelError as error:
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


# -- hazards ----------------------------------------------------------------------------------


def _advice(hazard: Hazard) -> str:
    limit = "" if hazard.threads is None else f" (app/classify.py --threads {hazard.threads})"
    return f"{hazard.name}: {hazard.text}; {hazard.remedy}{limit}"


# -- the two commands -------------------------------------------------------------------------


def check(site: Site, model: ModelFile | None = None, fix: bool = False) -> bool:
    """Print the state of everything; returns whether all is well. Touches no hardware."""
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


def load(site: Site, model: ModelFile | None = None, fix: bool = False) -> None:
    """Load the overlay and install its firmware; what is wrong is found before anything is touched.

    Loading again what is loaded is allowed and resets the DPU: no job may be running.

    Raises
    ------
    OverlayError
        The user is not root, a check fails, or pynq does.
    """
    if os.geteuid() != 0:
        raise OverlayError("loading needs root: sudo su, source PYNQ's profile, try again")
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
        text = " ".join(str(error).split()) or type(error).__name__
        raise OverlayError(f"{path}: pynq does not load it: {text}") from error


def _check_loaded(site: Site, model: ModelFile | None) -> None:
    queried = query_fingerprint()
    if queried is None:
        return
    _say("dpu", f"fingerprint {queried:#x}, by {' '.join(_QUERY)}")
    expected = site.overlay.fingerprint
    if model is not None:
        check_model(site, model, queried)
    elif expected is not None and queried != expected:
        raise OverlayError(
            f"the DPU has fingerprint {queried:#x}, {site.overlay.release} {expected:#x}: "
            "the files are another overlay's"
        )


def _say(name: str, text: str) -> None:
    print(f"{name:<10} {shown(text)}", flush=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tutelage.board.overlay",
        description="Load the DPU's overlay on the board, or check what a job needs.",
        epilog="Exit status: 0 all is well, 1 something is wrong, 2 wrong use.",
    )
    parser.add_argument("command", choices=("load", "check"))
    parser.add_argument("folder", metavar="DIR", type=Path, help="directory with dpu.bit and so on")
    parser.add_argument("--board", default=DEFAULT_BOARD, help="default: %(default)s")
    parser.add_argument("--model", type=Path, metavar="X.xmodel", help="check that it fits the DPU")
    parser.add_argument(
        "--plugin", type=Path, metavar="ops.py", help="the model's own CPU operators"
    )
    parser.add_argument("--fix", action="store_true", help="repair vart.conf, with a backup")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, root: Path = Path("/")) -> int:
    """Run the command line; `root` stands for / in all paths of the system."""
    options = _arguments(arguments)
    try:
        site = site_of(options.board, options.folder, root)
        model = ModelFile(options.model, options.plugin) if options.model else None
        if options.command == "check":
            return DONE if check(site, model, options.fix) else FAILED
        load(site, model, options.fix)
        return DONE
    except (OverlayError, TomlError) as error:
        return _complain(str(error), FAILED)
    except OverlayUsageError as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def _complain(text: str, status: int) -> int:
    print(f"overlay: {shown(text)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
