"""Registry of sources by the form of their URI.

A source is one file of this folder: a class derived from `tutelage.app.sources.frames.FrameSource`,
and a function that opens it, registered as follows:

    @register_source(has_scheme("rtsp", "rtsps"), {"rtsp://host/stream": "a network camera"})
    def open_rtsp(uri: str, reconnect: float) -> FrameSource: ...

The function takes the URI, and the time (s) in which a lost source may come back.
"""

from __future__ import annotations

from collections.abc import Callable

from tutelage.app.sources.frames import FrameSource
from tutelage.app.uri_registry import UriRegistry

SOURCES: UriRegistry[Callable[[str, float], FrameSource]] = UriRegistry("tutelage.app.sources")
register_source = SOURCES.register


def has_scheme(*schemes: str) -> Callable[[str], bool]:
    """Return a predicate for URIs with one of these schemes (lower case)."""
    return lambda uri: "://" in uri and uri.partition("://")[0].lower() in schemes
