"""Fetch a board's overlay, or take local files, verify it and put it in place.

    tutelage overlay zcu104                     # from AMD, into overlays/zcu104/files
    tutelage overlay zcu104 --from ~/Downloads  # files that you have fetched yourself

overlays/<board>/overlay.toml names the files, where they come from and their md5 sums, as far as
their maker publishes them. The sha256 of what was verified first is taken down in sha256.toml
beside it; from then on nothing else is accepted. A copy lies beside the files, for
`board/overlay.py`. All files are verified before the first is put in place. AMD's address itself
was not tried.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tutelage.core.files import scratch_directory
from tutelage.core.locations import CODE
from tutelage.core.overlay_pins import PINS, read_pins, write_pins
from tutelage.core.toml_file import TomlError
from tutelage.host.train.config import read_toml

OVERLAYS = CODE / "overlays"
MANIFEST = "overlay.toml"

_SOCKET_SECONDS = 30
_FILE_SECONDS = 1800
_MOST_REDIRECTS = 5
_CHUNK = 1 << 18

Say = Callable[[str], None]


class OverlayError(RuntimeError):
    """The overlay cannot be had, or is not what it should be; one line that says what to do."""


class OverlayUsageError(ValueError):
    """What was asked for cannot be; the text is one line."""


@dataclass(frozen=True)
class OverlayFile:
    """A file of an overlay: its name here, its name at its maker's, its published md5."""

    name: str
    remote: str
    md5: str


@dataclass(frozen=True)
class Manifest:
    """What overlays/<board>/overlay.toml tells.

    Attributes
    ----------
    folder : where it lies
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


@dataclass(frozen=True)
class Sums:
    """Checksums of a file, hexadecimal."""

    md5: str
    sha256: str


def overlay_boards() -> list[str]:
    """The boards that have an overlay."""
    return sorted(path.parent.name for path in OVERLAYS.glob(f"*/{MANIFEST}"))


def read_manifest(board: str) -> Manifest:
    """The manifest of a board's overlay.

    Raises
    ------
    OverlayUsageError
        There is none for this board, or it is not what it must be.
    ConfigError
        It is no TOML.
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
            path.parent, table["release"], table["url"], int(table["max_bytes"]), files
        )
    except (LookupError, TypeError, ValueError) as error:
        raise OverlayUsageError(f"{path}: not an overlay's manifest: {error!r}") from error
    for file in files:
        named = re.fullmatch(r"[\w-][\w.-]*", file.name)
        if not (named and re.fullmatch("[0-9a-f]{32}", file.md5)):
            raise OverlayUsageError(f"{path}: {file.name!r} needs a plain name and an md5")
    return manifest


def place_overlay(
    board: str, source: Path | None, output: Path | None, url: str, say: Say,
    fetcher: Fetcher | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Get all files of a board's overlay, verify them, put them in place; returns the figures.

    Parameters
    ----------
    source : directory with the files, under either name; None to download them
    output : directory of the result; None for overlays/<board>/files
    url : address instead of the manifest's; "" for that
    say : takes what the user should know besides the result
    fetcher : what downloads; None for the usual one

    Raises
    ------
    OverlayUsageError, ConfigError
        There is no such board or file, or the options exclude each other.
    OverlayError
        A download failed, a file is not what it should be, or cannot be written. What lay in
        the output directory stays.
    """
    if source is not None and url:
        raise OverlayUsageError("--from and --url exclude each other")
    manifest = read_manifest(board)
    output = manifest.folder / "files" if output is None else output
    pins = _pins(manifest.folder / PINS)
    figures = {
        "board": board,
        "release": manifest.release,
        "output": str(output),
        "files": [file.name for file in manifest.files],
    }
    try:
        if source is None and _is_complete(manifest, output, pins):
            return {**figures, "pins": f"as in {manifest.folder / PINS}", "placed": False}
        output.mkdir(parents=True, exist_ok=True)
        with scratch_directory(output / f".fetching-{os.getpid()}") as scratch:
            _gather(manifest, source, scratch, url, fetcher or Fetcher(), say)
            found = {file.name: _verified(file, scratch, pins) for file in manifest.files}
            _pin(manifest, output, found, pins)
            for file in manifest.files:
                (scratch / file.name).replace(output / file.name)
    except OSError as error:
        raise OverlayError(f"{error.filename or output}: {error.strerror or error}") from error
    how = f"{'as' if pins else 'taken down'} in {manifest.folder / PINS}"
    return {**figures, "pins": how, "placed": True}


# -- verifying --------------------------------------------------------------------------------


def _pins(path: Path) -> dict[str, str]:
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


def sums_of(path: Path) -> Sums:
    """Both checksums of a file, in one pass."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    return Sums(md5.hexdigest(), sha256.hexdigest())


def _verified(file: OverlayFile, folder: Path, pins: dict[str, str]) -> str:
    """The sha256 of a file that has the published md5, and the pinned sha256 if there is one."""
    sums = sums_of(folder / file.name)
    if sums.md5 != file.md5:
        raise OverlayError(
            f"{file.name}: md5 is {sums.md5}, published is {file.md5}: corrupt, or another "
            "release's; nothing was put in place"
        )
    pinned = pins.get(file.name)
    if pinned is not None and pinned != sums.sha256:
        raise OverlayError(
            f"{file.name}: has the published md5, but not the sha256 in {PINS}: forged, or "
            "that was changed; nothing was put in place"
        )
    return sums.sha256


def _is_complete(manifest: Manifest, output: Path, pins: dict[str, str]) -> bool:
    """Whether all files lie there, verified before."""
    try:
        for file in manifest.files:
            if file.name not in pins or _verified(file, output, pins) != pins[file.name]:
                return False
        return _pins(output / PINS) == pins
    except (OSError, OverlayError, ValueError):
        return False


def _pin(manifest: Manifest, output: Path, found: dict[str, str], pins: dict[str, str]) -> None:
    comment = f"sha256 of {manifest.release}'s files, from when their md5 was verified first."
    for path in (manifest.folder / PINS, output / PINS):
        write_pins(path, {**pins, **found}, comment)


# -- getting ----------------------------------------------------------------------------------


def _gather(
    manifest: Manifest, source: Path | None, scratch: Path, url: str, fetcher: Fetcher, say: Say
) -> None:
    """Bring all files, unverified, into the scratch directory."""
    for file in manifest.files:
        place = scratch / file.name
        if source is not None:
            _take(source, file, place, manifest.max_bytes)
            continue
        address = (url or manifest.url) + urllib.parse.quote(file.remote)
        say(f"fetching {address}")
        fetcher.fetch(address, place, manifest.max_bytes)


def _take(source: Path, file: OverlayFile, place: Path, most: int) -> None:
    for name in (file.name, file.remote):
        path = source / name
        if path.is_file():
            if path.stat().st_size > most:
                raise OverlayError(f"{path}: more than {most:,} bytes; not the overlay's")
            shutil.copyfile(path, place)
            return
    raise OverlayUsageError(f"{source}: has neither {file.name} nor {file.remote}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MOST_REDIRECTS

    def __init__(self, check: Callable[[str], None]):
        self._check = check

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        try:
            self._check(newurl)
        except OverlayUsageError as error:
            raise OverlayError(f"{req.full_url}: is redirected: {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Fetcher:
    """Downloads files by HTTPS, bounded in size and time.

    Parameters
    ----------
    allow_local_http : take plain HTTP from this machine itself (for tests)
    context : certificates to trust; None for the system's
    seconds : most seconds for a file
    """

    def __init__(
        self,
        allow_local_http: bool = False,
        context: ssl.SSLContext | None = None,
        seconds: float = _FILE_SECONDS,
    ):
        self._allow_local_http = allow_local_http
        self._seconds = seconds
        self._opener = urllib.request.build_opener(
            _Redirects(self._check),
            urllib.request.HTTPSHandler(context=context or ssl.create_default_context()),
        )

    def fetch(self, url: str, path: Path, most: int) -> None:
        """Write what `url` gives to `path`.

        Raises
        ------
        OverlayUsageError
            It is no https address.
        OverlayError
            It cannot be had, is cut off, larger than `most` bytes, or a web page.
        """
        self._check(url)
        timeout = min(_SOCKET_SECONDS, self._seconds)
        try:
            with self._opener.open(url, timeout=timeout) as answer, path.open("wb") as file:
                self._copy(url, answer, file, most)
        except urllib.error.HTTPError as error:
            error.close()
            reason = " ".join(str(error.reason).split())
            raise OverlayError(f"{url}: the server answers {error.code} {reason}{_HINT}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ssl.SSLError,
                ConnectionError) as error:  # fmt: skip
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            text = " ".join(str(reason).split())
            raise OverlayError(f"{url}: cannot be fetched: {text}{_HINT}") from error

    def _check(self, url: str) -> None:
        """Refuse addresses that are not https."""
        try:
            parts = urllib.parse.urlsplit(url)
            local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        except ValueError as error:
            raise OverlayUsageError(f"{url}: not an address: {error}") from error
        if parts.scheme == "https" and parts.hostname:
            return
        if not (self._allow_local_http and local and parts.scheme == "http"):
            raise OverlayUsageError(f"{url}: only https is taken")

    def _copy(self, url: str, answer: Any, file: IO[bytes], most: int) -> None:
        if answer.headers.get_content_type() == "text/html":
            raise OverlayError(f"{url}: the server sends a page, not the file{_HINT}")
        told = answer.headers.get("Content-Length", "")
        if told.isdigit() and int(told) > most:
            raise OverlayError(f"{url}: {int(told):,} bytes; at most {most:,} are taken")
        end, size = time.monotonic() + self._seconds, 0
        while chunk := answer.read1(_CHUNK):
            size += len(chunk)
            if size > most:
                raise OverlayError(f"{url}: more than {most:,} bytes; not the overlay's")
            if time.monotonic() > end:
                raise OverlayError(f"{url}: takes longer than {self._seconds:.0f} s{_HINT}")
            file.write(chunk)
        if told.isdigit() and size != int(told):
            raise OverlayError(f"{url}: cut off after {size:,} of {int(told):,} bytes; try again")


_HINT = "; fetch the files by a browser and give their directory with --from"
