"""What is known of a board's overlay: its files, where they come from, their checksums.

overlays/<board>/overlay.toml names the files and has their makers' md5 sums; sha256.toml beside it
has the sha256 of each file, from when it was verified first.
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
    """A file of an overlay: its name here, its name at its maker's, its published md5."""

    name: str
    remote: str
    md5: str


@dataclass(frozen=True)
class Manifest:
    """Contents of overlays/<board>/overlay.toml.

    Attributes
    ----------
    folder : where files/ and the recorded checksums go, see `overlay_folder`
    release : whose overlay it is
    url : address before each file's remote name
    max_bytes : most bytes that a file may have
    files : all files
    """

    folder: Path
    release: str
    url: str
    max_bytes: int
    files: tuple[OverlayFile, ...]


def overlay_boards() -> list[str]:
    """The boards that have an overlay."""
    return sorted(path.parent.name for path in OVERLAYS.glob(f"*/{MANIFEST}"))


def overlay_folder(board: str) -> Path:
    """Return the folder of a board's overlay that may be written; it need not exist.

    That is the checkout's own. An installed package is not written to: then it is
    $XDG_DATA_HOME/tutelage/overlays/<board>, by default below ~/.local/share.
    """
    if IS_CHECKOUT:
        return OVERLAYS / board
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "tutelage" / "overlays" / board


def read_manifest(board: str) -> Manifest:
    """The manifest of a board's overlay.

    Raises
    ------
    OverlayUsageError
        There is none for this board, or it is not what it must be.
    TomlError
        It is not TOML.
    """
    if board not in overlay_boards():
        raise OverlayUsageError(
            f"no overlay for {board!r}; there is one for {', '.join(overlay_boards())}"
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
    """The sha256 of each file that was verified before; empty where none was.

    Raises
    ------
    OverlayUsageError
        The file is there and not what it must be.
    """
    try:
        return read_pins(path)
    except TomlError as error:
        raise OverlayUsageError(str(error)) from error


def record_sums(
    manifest: Manifest, output: Path, found: dict[str, str], pins: dict[str, str]
) -> None:
    """Record the checksums beside the manifest and beside the files."""
    comment = f"sha256 of {manifest.release}'s files, from when their md5 was verified first."
    for path in (manifest.folder / PINS, output / PINS):
        write_pins(path, {**pins, **found}, comment)
