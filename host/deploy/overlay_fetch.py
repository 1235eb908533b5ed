"""Download of an overlay's files by HTTPS, with limits of size and time."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tutelage.core.errors import OverlayError, OverlayUsageError, one_line

_SOCKET_SECONDS = 30
_FILE_SECONDS = 1800
_MOST_REDIRECTS = 5
_CHUNK = 1 << 18
_HINT = ": download the files with a browser and give their directory with --from"


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
            raise OverlayError(f"{req.full_url}: the server redirects to {error}") from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Fetcher:
    """Downloader of files by HTTPS, with limits of size and time.

    Parameters
    ----------
    allow_local_http : allow plain HTTP from this machine (for tests)
    context : certificates to trust; None for the system's
    seconds : time limit of a file, s
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
        """Download a URL to a file.

        Parameters
        ----------
        most : largest allowed size, bytes

        Raises
        ------
        OverlayUsageError
            The URL is not an https address.
        OverlayError
            The file cannot be downloaded, is truncated, too large, or a web page.
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
            text = one_line(getattr(error, "reason", None) or error)
            raise OverlayError(f"{url}: cannot be downloaded: {text}{_HINT}") from error

    def _check(self, url: str) -> None:
        """Raise OverlayUsageError for addresses that are not https."""
        try:
            parts = urllib.parse.urlsplit(url)
            local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        except ValueError as error:
            raise OverlayUsageError(f"{url}: not an address: {error}") from error
        if parts.scheme == "https" and parts.hostname:
            return
        if not (self._allow_local_http and local and parts.scheme == "http"):
            raise OverlayUsageError(f"{url}: not an https address")

    def _copy(self, url: str, answer: Any, file: IO[bytes], most: int) -> None:
        if answer.headers.get_content_type() == "text/html":
            raise OverlayError(f"{url}: the server sends a web page, not the file{_HINT}")
        announced = answer.headers.get("Content-Length", "")
        if announced.isdigit() and int(announced) > most:
            raise OverlayError(
                f"{url}: {int(announced):,} bytes are more than the limit of {most:,}"
            )
        end, size = time.monotonic() + self._seconds, 0
        while chunk := answer.read1(_CHUNK):
            size += len(chunk)
            if size > most:
                raise OverlayError(f"{url}: more than {most:,} bytes: not a file of the overlay")
            if time.monotonic() > end:
                raise OverlayError(f"{url}: took longer than {self._seconds:.0f} s{_HINT}")
            file.write(chunk)
        if announced.isdigit() and size != int(announced):
            raise OverlayError(
                f"{url}: truncated after {size:,} of {int(announced):,} bytes: try again"
            )
