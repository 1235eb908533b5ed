"""Download of a board's overlay, or copy from local files, with verification.

    tutelage overlay zcu104                     # from AMD
    tutelage overlay zcu104 --from ~/Downloads  # files that you have downloaded yourself

overlays/<board>/overlay.toml has the names of the files, their addresses and the md5 sums that AMD
publishes. In a checkout the files are put in overlays/<board>/files, for an installed package in
the user's data directory (`overlay_folder`); deploy uses them from there. The sha256 sums of the
first verified files are recorded in sha256.toml beside files/; from then on no others are accepted.
A copy of it is beside the files, for `board/overlay`. All files are verified before the first is
put in place. AMD's address was not tried.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import OverlayError, OverlayUsageError
from tutelage.core.files import scratch_directory
from tutelage.core.overlay_pins import PINS
from tutelage.host.deploy.overlay_fetch import Fetcher
from tutelage.host.deploy.overlay_manifest import (
    Manifest,
    OverlayFile,
    read_manifest,
    record_sums,
    verified_before,
)

_CHUNK = 1 << 18

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sums:
    """Checksums of a file, hexadecimal."""

    md5: str
    sha256: str


def place_overlay(
    board: str, source: Path | None, output: Path | None, url: str, say: Say,
    fetcher: Fetcher | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Get all files of a board's overlay, verify them and put them in place; return the figures.

    Parameters
    ----------
    board : name of the board's profile
    source : directory of the files, under their local or their remote names; None to download them
    output : directory to put them in; None for files/ in `overlay_folder`
    url : address to download from; "" for that of the manifest
    say : called with lines for the user
    fetcher : downloader; None for the default one

    Raises
    ------
    OverlayUsageError, TomlError
        There is no such board or file, or the options exclude each other.
    OverlayError
        A download failed, a file does not have its checksum, or cannot be written. The files in the
        output directory are unchanged.
    """
    if source is not None and url:
        raise OverlayUsageError("--from and --url cannot be used together")
    manifest = read_manifest(board)
    output = manifest.folder / "files" if output is None else output
    pins = verified_before(manifest.folder / PINS)
    figures = {
        "board": board,
        "release": manifest.release,
        "output": str(output),
        "files": [file.name for file in manifest.files],
    }
    try:
        if source is None and _is_complete(manifest, output, pins):
            return {**figures, "pins": f"as in {manifest.folder / PINS}", "placed": False}
        for folder in (output, manifest.folder):
            folder.mkdir(parents=True, exist_ok=True)
        with scratch_directory(output / f".fetching-{os.getpid()}") as scratch:
            _gather(manifest, source, scratch, url, fetcher or Fetcher(), say)
            found = {file.name: _verified(file, scratch, pins) for file in manifest.files}
            record_sums(manifest, output, found, pins)
            for file in manifest.files:
                (scratch / file.name).replace(output / file.name)
    except OSError as error:
        raise OverlayError(f"{error.filename or output}: {error.strerror or error}") from error
    how = f"{'as' if pins else 'recorded'} in {manifest.folder / PINS}"
    return {**figures, "pins": how, "placed": True}


# -- verification -----------------------------------------------------------------------------


def sums_of(path: Path) -> Sums:
    """Return both checksums of a file, in one pass."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return Sums(md5.hexdigest(), sha256.hexdigest())


def _verified(file: OverlayFile, folder: Path, pins: dict[str, str]) -> str:
    """Return the sha256 of a file; raise OverlayError if its md5 or its sha256 is wrong."""
    sums = sums_of(folder / file.name)
    if sums.md5 != file.md5:
        raise OverlayError(
            f"{file.name}: md5 is {sums.md5}, the published one {file.md5}: the file is corrupt or "
            "of another release; nothing was put in place"
        )
    pinned = pins.get(file.name)
    if pinned is not None and pinned != sums.sha256:
        raise OverlayError(
            f"{file.name}: has the published md5, but not the sha256 in {PINS}: the file is "
            f"forged, or {PINS} was changed; nothing was put in place"
        )
    return sums.sha256


def _is_complete(manifest: Manifest, output: Path, pins: dict[str, str]) -> bool:
    """Whether all files are in place and have the recorded checksums."""
    try:
        for file in manifest.files:
            if file.name not in pins or _verified(file, output, pins) != pins[file.name]:
                return False
        return verified_before(output / PINS) == pins
    except (OSError, OverlayError, ValueError):
        return False


# -- download ---------------------------------------------------------------------------------


def _gather(
    manifest: Manifest, source: Path | None, scratch: Path, url: str, fetcher: Fetcher, say: Say
) -> None:
    """Copy or download all files, unverified, into the scratch directory."""
    for file in manifest.files:
        place = scratch / file.name
        if source is not None:
            _take(source, file, place, manifest.max_bytes)
            continue
        address = (url or manifest.url) + urllib.parse.quote(file.remote)
        say(f"downloading {address}")
        fetcher.fetch(address, place, manifest.max_bytes)


def _take(source: Path, file: OverlayFile, place: Path, most: int) -> None:
    for name in (file.name, file.remote):
        path = source / name
        if path.is_file():
            if path.stat().st_size > most:
                raise OverlayError(f"{path}: more than {most:,} bytes: not a file of the overlay")
            shutil.copyfile(path, place)
            return
    raise OverlayUsageError(f"{source}: has neither {file.name} nor {file.remote}")
