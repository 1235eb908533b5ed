"""Access control of the live page: token, host names, origin of requests, security headers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.app.messages import say
from tutelage.app.web.connections import MOST_READERS
from tutelage.core.text import LONGEST_NAME, shown

OWN_HEADER = "x-tutelage"
"""Pages of other origins can send this header only after a CORS preflight, which is refused."""

_ADVICE = "open the URL that classify prints, or add /?token=... with the text of its token file"
_LONGEST_PATH = 1000  # characters
_SAFE_METHODS = {"GET", "HEAD"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def guarded(app: ASGIApp, token: str | None, port: int, hosts: Sequence[str] | None) -> ASGIApp:
    """Wrap an application in all checks.

    Parameters
    ----------
    token : token that every reader needs; None if none is needed
    port : port of the server. It is part of the cookie's name, since the ports of a host share
        their cookies.
    hosts : accepted names in the Host header, None for any. If only loopback names are accepted,
        a foreign name that resolves to this machine (DNS rebinding) does not reach the page.
    """
    names = None if hosts is None else frozenset(name.strip("[]").lower() for name in hosts)
    return Headers(Guard(app, token, f"tutelage_{port}", names))


class Headers:
    """Middleware that adds the security headers to every response and reports failed requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                is_static = scope["path"].startswith("/static/")
                headers["Cache-Control"] = "no-cache" if is_static else "no-store"
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.TimeoutError:
            raise  # the reader did not read
        except Exception as error:
            page = shown(scope["path"], LONGEST_NAME)
            say(f"page {page}: {error!r}")
            raise


class Guard:
    """Middleware that requires the token, and accepts changes only from the page itself."""

    def __init__(
        self, app: ASGIApp, token: str | None, cookie: str, hosts: frozenset[str] | None
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        answer = (
            _no_path(request)
            or self._wrong_host(request)
            or self._without_token(request)
            or _foreign(request)
            or _one_too_many(request)
            or self._app
        )
        await answer(scope, receive, send)

    def _wrong_host(self, request: Request) -> Response | None:
        # Starlette's TrustedHostMiddleware accepts IPv6 addresses and capitals only since 1.8,
        # which does not support the board's Python.
        if self._hosts is None or _host_name(request.headers.get("host", "")) in self._hosts:
            return None
        return _refusal(400, "this host name is not served here")

    def _without_token(self, request: Request) -> Response | None:
        """Return the response to a request without a valid token, or with one in the URL."""
        if self._token is None:
            return None
        if "token" in request.query_params:
            if not self._is_token(request.query_params["token"]):
                return _refusal(401, f"wrong token: {_ADVICE}")
            return self._welcome(request) if request.method in _SAFE_METHODS else None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(unquote(request.cookies.get(self._cookie, ""))):
            return None
        return _refusal(401, f"a token is needed: {_ADVICE}")

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _welcome(self, request: Request) -> Response:
        """Move the token into a cookie, since browsers show URLs and keep them in their history."""
        assert self._token is not None
        query = [item for item in parse_qsl(request.url.query, True) if item[0] != "token"]
        # One slash at the start: two would name another host.
        path = "/" + quote(request.url.path.lstrip("/"))
        response = RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303)
        value = quote(self._token, safe="")
        # Lax: links in a mail or a wiki open this page. All other requests from such a page come
        # without the cookie, and would be refused even with it (`_foreign`).
        response.set_cookie(self._cookie, value, httponly=True, samesite="lax")
        return response


def _no_path(request: Request) -> Response | None:
    """Refuse paths on which Starlette fails: with NUL (0.40), or with an endless number."""
    path = request.scope["path"]
    return _refusal(404, "no such page") if "\0" in path or len(path) > _LONGEST_PATH else None


def _host_name(header: str) -> str:
    """Return the name in a Host header in lower case, without its port; "" if it is invalid."""
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return ""
    return name if name and not set(header) & set("@/?#") else ""


def _foreign(request: Request) -> Response | None:
    """Refuse requests that a page of another site makes, except to open this page."""
    headers = request.headers
    opens = (
        request.method in _SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"  # not in a frame
    )
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opens:
        return _refusal(403, "requests from pages of other sites are refused")
    if request.method in _SAFE_METHODS:
        return None
    if headers.get(OWN_HEADER) != "1":
        return _refusal(403, "a POST needs the header X-Tutelage: 1")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return _refusal(403, "a POST is accepted from the page itself only")
    return None


def _one_too_many(request: Request) -> Response | None:
    """Count an accepted request's connection as a reader's; refuse it if there are too many."""
    if request.state.connection.admit():
        return None
    return _refusal(503, f"{MOST_READERS} connections are open already; try again later")


def _refusal(status: int, text: str) -> Response:
    headers = {"Connection": "close"}  # a refused client occupies no connection
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return PlainTextResponse(text + "\n", status, headers)
