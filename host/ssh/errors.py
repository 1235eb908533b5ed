"""Errors of a host, or of the connection to it."""

from __future__ import annotations

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.text import shown


class RemoteError(TutelageError):
    """A command failed on a host, or the connection failed; the text is one line."""

    status = FAILED


class ConnectionLost(RemoteError):
    """The host cannot be reached, has another key than the known one, or the connection broke."""


class AccessRefused(ConnectionLost):
    """The host's key or the user is not accepted, so that trying again does not help."""


class RemoteUsageError(TutelageError):
    """A host's name is not valid, or ssh or rsync is not installed; the text is one line."""


def telling_line(errors: str) -> str:
    """Return the most informative line of an error output: the last one before rsync's summary.

    The output comes from an untrusted host, so that control characters are escaped.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", "rsync: connection"))]
    return shown((telling or lines or [""])[-1])
