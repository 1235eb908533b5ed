"""URLs of network cameras, which may contain a password."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from tutelage.app.sources.frames import SourceError


def check_url(url: str) -> None:
    """Refuse an invalid URL, or one whose password is ambiguous.

    Raises
    ------
    SourceError
        The URL is refused. The message shows only its scheme, since the rest may be a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        # A parser reads user:1/23@host as the host "user" with port 1.
        if port is not None and "@" not in parts.netloc and "@" in url:
            host = None
    if not host:
        raise SourceError(
            f"{url.partition('://')[0]}://...: not a URL; in a user name or password "
            "write / as %2F, # as %23, ? as %3F, @ as %40"
        )


def without_password(url: str) -> str:
    """Return a URL for messages, without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
