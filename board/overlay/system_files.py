"""The overlay's files: those that were fetched, and the system's firmware."""

from __future__ import annotations

from pathlib import Path

from tutelage.board.overlay.site import OverlaySite, in_one_line, write_durably
from tutelage.core.errors import OverlayError
from tutelage.core.files import sha256_of
from tutelage.core.overlay_pins import PINS, read_pins
from tutelage.core.toml_file import TomlError


def check_files(site: OverlaySite) -> str:
    """See that all files are there and have the checksums that are beside them; says what was seen.

    Raises
    ------
    OverlayError
        One is missing, empty, or not the file that was verified.
    """
    pins = _pins(site.folder / PINS)
    for name in site.overlay.files:
        path = site.folder / name
        if not path.is_file() or not in_one_line(path, path.stat).st_size:
            raise OverlayError(
                f"{path}: missing or empty; `make overlay BOARD=...` on the workstation fetches it"
            )
        if pins and pins.get(name) != in_one_line(path, lambda path=path: sha256_of(path)):
            raise OverlayError(
                f"{path}: not the file that {PINS} has the SHA-256 of; copy it again"
            )
    names = ", ".join(site.overlay.files)
    return f"{names}: {f'as {PINS} has them' if pins else f'there; no {PINS}, so not verified'}"


def _pins(path: Path) -> dict[str, str]:
    try:
        return read_pins(path)
    except TomlError as error:
        raise OverlayError(str(error)) from error


def check_firmware(site: OverlaySite) -> str:
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


def install_firmware(site: OverlaySite) -> str:
    """Put the xclbin where VART looks for it, in one step; says what was done.

    Raises
    ------
    OverlayError
        It cannot be written; what was there before stays.
    """
    source = site.folder / site.overlay.xclbin
    if site.firmware.is_file() and _same(source, site.firmware):
        return f"{site.firmware}: there already"
    in_one_line(site.firmware, lambda: write_durably(site.firmware, source.read_bytes()))
    return f"{site.firmware}: installed"


def _same(one: Path, other: Path) -> bool:
    return bool(in_one_line(other, lambda: sha256_of(one) == sha256_of(other)))
