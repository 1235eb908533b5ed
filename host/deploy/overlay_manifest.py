"""Manifest of a board's overlay: its files, their addresses and their checksums.

overlays/<board>/overlay.toml has the names of the files and their published md5 sums; sha256.toml
beside it has the sha256 of each file, recorded when it was first verified.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import OverlayUsageError
from tutelage.core.locations import CODE, IS_CHECKOUT
from tutelage.core.overlay_pins import PINS, read_pins, write_pins
from tutelage.core.toml_file import TomlError, read_toml

OVERLAYS = CODE / "overlays"
MANIFEST = "overlay.toml"


@dataclass(frozen=True)
class OverlayFile:
    """A file of an overlay.

    Attributes
    ----------
    name : name under which it is kept, such as "dpu.bit"
    remote : the publisher's name of it, which is appended to the address
    md5 : its published MD5, in hexadecimal
    """

    name: str
    remote: str
    md5: str


@dataclass(frozen=True)
class Manifest:
    """Contents of overlays/<board>/overlay.toml.

    Attributes
    ----------
    folder : folder for files/ and the recorded checksums, see `overlay_folder`
    release : name of the release that the overlay is of
    url : address that precedes each file's remote name
    max_bytes : largest size of a file, bytes
    files : all files
    """

    folder: Path
    release: str
    url: str
    max_bytes: int
    files: tuple[OverlayFile, ...]


def overlay_boards() -> list[str]:
    """Return the boards that have an overlay."""
    return sorted(path.parent.name for path in OVERLAYS.glob(f"*/{MANIFEST}"))


def overlay_folder(board: str) -> Path:
    """Return the writable folder of a board's overlay; it may not exist yet.

    In a checkout it is that of the checkout, for an installed package, which is not writable,
    $XDG_DATA_HOME/tutelage/overlays/<board>, by default below ~/.local/share.
    """
    if IS_CHECKOUT:
        return OVERLAYS / board
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "tutelage" / "overlays" / board


def read_manifest(board: str) -> Manifest:
    """Read the manifest of a board's overlay.

    Raises
    ------
    OverlayUsageError
        There is none for this board, or a key is missing or not valid.
    TomlError
        The file is not TOML.
    """
    if board not in overlay_boards():
        raise OverlayUsageError(
            f"no overlay for {board!r}; choose from {', '.join(overlay_boards())}"
        )
    path = OVERLAYS / board / MANIFEST
    table = read_toml(path)
    try:
        files = tuple(OverlayFile(**file) for file in table["files"])
        manifest = Manifest(
            overlay_folder(board), table["release"], table["url"], int(table["max_bytes"]), files
        )
    except (LookupError, TypeError, ValueError) as error:
        raise OverlayUsageError(f"{path}: not an overlay's manifest: {error!r}") from error
    for file in files:
        named = re.fullmatch(r"[\w-][\w.-]*", file.name)
        if not (named and re.fullmatch("[0-9a-f]{32}", file.md5)):
            raise OverlayUsageError(f"{path}: {file.name!r} needs a plain name and an md5")
    return manifest


def verified_before(path: Path) -> dict[str, str]:
    """Return the recorded sha256 of each file; empty if none was verified before.

    Raises
    ------
    OverlayUsageError
        The file is not a table of checksums.
    """
    try:
        return read_pins(path)
    except TomlError as error:
        raise OverlayUsageError(str(error)) from error


def record_sums(
    manifest: Manifest, output: Path, found: dict[str, str], pins: dict[str, str]
) -> None:
    """Record the checksums beside the manifest and beside the files.

    Parameters
    ----------
    found : sha256 of the files that were verified now
    pins : recorded before
    """
    comment = f"sha256 of the files of {manifest.release}, recorded when their md5 was verified."
    for path in (manifest.folder / PINS, output / PINS):
        write_pins(path, {**pins, **found}, comment)
