"""HTTP client for streams, with a time limit for headers and an end from another thread."""

from __future__ import annotations

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import unquote

from tutelage.core.errors import first_line

_CHUNK = 1 << 16


class HttpClient:
    """Client for one URL, which can be opened repeatedly.

    Parameters
    ----------
    url : http:// or https://, without user and password
    user, password : percent-encoded as in a URL, for basic and digest authentication; None for none
    silence_seconds : longest time without data from the server, s
    head_seconds : longest time until the headers of the answer are complete, s
    """

    def __init__(
        self,
        url: str,
        user: str | None,
        password: str | None,
        silence_seconds: float,
        head_seconds: float,
    ) -> None:
        self._url = url
        self._silence_seconds = silence_seconds
        self._opener = _opener(head_seconds, _credentials(url, user, password))

    def open(self) -> HttpStream:
        """Request the URL.

        Raises
        ------
        OSError
            The server cannot be reached, or refuses; the message is one line.
        """
        try:
            return HttpStream(self._opener.open(self._url, timeout=self._silence_seconds))
        except urllib.error.HTTPError as error:
            error.close()
            text = f"the server answers {error.code} {first_line(error.reason)}"
            raise OSError(text) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = first_line(getattr(error, "reason", None) or error)
            raise OSError(f"cannot be reached: {reason}") from None


class HttpStream:
    """The body of an answer.

    Attributes
    ----------
    content_type : type of the content, such as "multipart/x-mixed-replace"
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.content_type: str = answer.headers.get_content_type()

    def read(self) -> bytes:
        """Return the next bytes; b"" at the end.

        Raises
        ------
        TimeoutError
            The server sent nothing within the time limit.
        OSError
            The connection broke, or was interrupted.
        """
        try:
            data: bytes = self._answer.read1(_CHUNK)
        except (HTTPException, ValueError) as error:  # ValueError: after `interrupt`
            raise OSError(first_line(error)) from error
        return data

    def interrupt(self) -> None:
        """End the connection, and with it a `read` that waits in another thread."""
        # Closing the answer would wait for that `read`.
        # A stream that has ended by itself no longer has a descriptor: AttributeError.
        with suppress(OSError, ValueError, AttributeError):  # noqa: SIM117  (in this order)
            with socket.socket(fileno=os.dup(self._answer.fileno())) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the answer. No other thread may be reading."""
        self._answer.close()


class _Connection(HTTPConnection):
    """A connection with a limit on the time of a whole head; HTTPConnection limits each read."""

    def __init__(self, *arguments: Any, head_seconds: float, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head_seconds = head_seconds

    def getresponse(self) -> HTTPResponse:
        late = threading.Event()

        def end(connection: socket.socket) -> None:
            late.set()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._head_seconds, end, [self.sock])
        timer.daemon = True
        timer.start()
        try:
            answer = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():  # else the head would seem to end there
            raise TimeoutError(f"no complete answer within {self._head_seconds:g} s")
        return answer


class _SecureConnection(HTTPSConnection, _Connection):
    """The same over TLS."""


class _HTTPHandler(urllib.request.HTTPHandler):
    def __init__(self, head_seconds: float) -> None:
        super().__init__()
        self._connection: Any = partial(_Connection, head_seconds=head_seconds)

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self, head_seconds: float) -> None:
        super().__init__()
        self._connection: Any = partial(_SecureConnection, head_seconds=head_seconds)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


def _credentials(
    url: str, user: str | None, password: str | None
) -> Sequence[urllib.request.BaseHandler]:
    if user is None:
        return []
    known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    known.add_password(None, url, unquote(user), unquote(password or ""))
    return [
        urllib.request.HTTPBasicAuthHandler(known),
        urllib.request.HTTPDigestAuthHandler(known),
    ]


def _opener(
    head_seconds: float, credentials: Sequence[urllib.request.BaseHandler]
) -> urllib.request.OpenerDirector:
    # Without handlers for ftp:// and file://, to which a redirect must not lead.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _HTTPHandler(head_seconds),
        _HTTPSHandler(head_seconds),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        *credentials,
    ):
        opener.add_handler(handler)
    return opener
