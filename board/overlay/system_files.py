"""The overlay's files: the downloaded ones, and the system's firmware."""

from __future__ import annotations

from pathlib import Path

from tutelage.board.overlay.site import OverlaySite, in_one_line, write_durably
from tutelage.core.errors import OverlayError
from tutelage.core.files import sha256_of
from tutelage.core.overlay_pins import PINS, read_pins
from tutelage.core.toml_file import TomlError


def check_files(site: OverlaySite) -> str:
    """Check that all files exist and have the checksums of the file beside them.

    Returns
    -------
    A line with the outcome

    Raises
    ------
    OverlayError
        A file is missing, empty, or differs from the one that was verified.
    """
    pins = _pins(site.folder / PINS)
    for name in site.overlay.files:
        path = site.folder / name
        if not path.is_file() or not in_one_line(path, path.stat).st_size:
            raise OverlayError(
                f"{path}: missing or empty; run `make overlay BOARD=...` on the workstation"
            )
        if pins and pins.get(name) != in_one_line(path, lambda path=path: sha256_of(path)):
            raise OverlayError(f"{path}: its SHA-256 is not the one in {PINS}; copy the file again")
    names = ", ".join(site.overlay.files)
    return f"{names}: {f'verified with {PINS}' if pins else f'not verified, without {PINS}'}"


def _pins(path: Path) -> dict[str, str]:
    try:
        return read_pins(path)
    except TomlError as error:
        raise OverlayError(str(error)) from error


def check_firmware(site: OverlaySite) -> str:
    """Check that the system's xclbin is the overlay's; return a line with the outcome.

    Raises
    ------
    OverlayError
        The xclbin is missing or belongs to another overlay.
    """
    if not site.firmware.is_file():
        raise OverlayError(f"{site.firmware}: missing; `load` installs it")
    if not _same(site.folder / site.overlay.xclbin, site.firmware):
        raise OverlayError(f"{site.firmware}: is of another overlay; `load` installs the right one")
    return f"{site.firmware}: matches the overlay"


def install_firmware(site: OverlaySite) -> str:
    """Install the xclbin at the path where VART looks for it; return a line with the outcome.

    Raises
    ------
    OverlayError
        The file cannot be written. The existing one is unchanged.
    """
    source = site.folder / site.overlay.xclbin
    if site.firmware.is_file() and _same(source, site.firmware):
        return f"{site.firmware}: already installed"
    in_one_line(site.firmware, lambda: write_durably(site.firmware, source.read_bytes()))
    return f"{site.firmware}: installed"


def _same(one: Path, other: Path) -> bool:
    return bool(in_one_line(other, lambda: sha256_of(one) == sha256_of(other)))
