"""What can go wrong on a host, or on the way to it."""

from __future__ import annotations

from tutelage.core.errors import FAILED, TutelageError
from tutelage.core.text import shown


class RemoteError(TutelageError):
    """Something failed on a host, or on the way to it; the text is one line."""

    status = FAILED


class ConnectionLost(RemoteError):
    """The host is not reached, is not the one that is known, or went away."""


class AccessRefused(ConnectionLost):
    """The host's key or the user is not accepted; trying again does not help."""


class RemoteUsageError(TutelageError):
    """A host's name is not valid, or ssh or rsync is missing here; the text is one line."""


def telling_line(errors: str) -> str:
    """Return the most informative line of an error output: the last but rsync's summary.

    It comes from an untrusted host: see `tutelage.core.text.shown`.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", "rsync: connection"))]
    return shown((telling or lines or [""])[-1])
