"""URLs of network cameras, which may have a password in them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from tutelage.app.sources.frames import SourceError


def check_url(url: str) -> None:
    """Refuse a URL of which it is not certain what of it is the password.

    Raises
    ------
    SourceError
        One line that shows nothing of it but its scheme.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    else:
        # user:1/23@host has a host named user with the port 1, for a parser.
        if port is not None and "@" not in parts.netloc and "@" in url:
            host = None
    if not host:
        raise SourceError(
            f"{url.partition('://')[0]}://...: not a URL; in a user's name or password "
            "write / as %2F, # as %23, ? as %3F, @ as %40"
        )


def without_password(url: str) -> str:
    """Return a URL as it may be shown: user and password taken out, and what a query hides."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
