"""Who may see the page: token, host names, the origin of what changes something, headers."""

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
"""Pages of other origins cannot send it without asking, which is refused."""

_ADVICE = "open the URL that classify prints, or add /?token=... with what its token file contains"
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
    """Return the application behind all checks.

    Parameters
    ----------
    token : what a reader must know, None where everyone may look
    port : the server's, for the cookie's name: hosts share cookies between ports
    hosts : names that the Host header may hold, None for any. With loopback names alone no
        foreign name that resolves to this machine (DNS rebinding) reaches the page.
    """
    names = None if hosts is None else frozenset(name.strip("[]").lower() for name in hosts)
    return Headers(Guard(app, token, f"tutelage_{port}", names))


class Headers:
    """Puts the security headers on every response, and reports requests that failed."""

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
            raise  # a reader who took nothing
        except Exception as error:
            page = shown(scope["path"], LONGEST_NAME)
            say(f"page {page}: {error!r}")
            raise


class Guard:
    """Lets only those in who have the token, and only the page itself change something."""

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
        # Starlette's TrustedHostMiddleware knows IPv6 addresses and capitals since 1.8 only, which
        # the board's Python does not get.
        if self._hosts is None or _host_name(request.headers.get("host", "")) in self._hosts:
            return None
        return _refusal(400, "this host name is not served here")

    def _without_token(self, request: Request) -> Response | None:
        """Return what to say to one who has no token, or has it in the URL."""
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
        """Move the token from the URL, which is shown and kept, into a cookie."""
        assert self._token is not None
        query = [item for item in parse_qsl(request.url.query, True) if item[0] != "token"]
        # One slash at the begin: two would name another host.
        path = "/" + quote(request.url.path.lstrip("/"))
        response = RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303)
        value = quote(self._token, safe="")
        # Lax: a link on another page, in a mail or a wiki, opens this one. Whatever else such a
        # page asks for comes without the cookie, and is refused even with it (`_foreign`).
        response.set_cookie(self._cookie, value, httponly=True, samesite="lax")
        return response


def _no_path(request: Request) -> Response | None:
    """Refuse names that Starlette fails on: of no file (0.40), and of numbers without end."""
    path = request.scope["path"]
    return _refusal(404, "no such page") if "\0" in path or len(path) > _LONGEST_PATH else None


def _host_name(header: str) -> str:
    """Return the name in a Host header without its port, lower case; empty where it is none."""
    try:
        name = urlsplit(f"//{header}").hostname
    except ValueError:
        return ""
    return name if name and not set(header) & set("@/?#") else ""


def _foreign(request: Request) -> Response | None:
    """Refuse what another site's page asks for in its reader's name: all but to be opened."""
    headers = request.headers
    opens = (
        request.method in _SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"  # and no frame of theirs
    )
    if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not opens:
        return _refusal(403, "other sites' pages get nothing here")
    if request.method in _SAFE_METHODS:
        return None
    if headers.get(OWN_HEADER) != "1":
        return _refusal(403, "a POST needs the header X-Tutelage: 1")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return _refusal(403, "a POST comes from the page itself only")
    return None


def _one_too_many(request: Request) -> Response | None:
    """Count an accepted request's connection among the readers'."""
    if request.state.connection.admit():
        return None
    return _refusal(503, f"{MOST_READERS} connections are open already; try again later")


def _refusal(status: int, text: str) -> Response:
    headers = {"Connection": "close"}  # who is refused keeps no place
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return PlainTextResponse(text + "\n", status, headers)
