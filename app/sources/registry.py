"""The forms of a source's URI, and which function opens each.

A source is one file of this folder: a class derived from `tutelage.app.sources.frames.FrameSource`,
and the function that opens it, registered here:

    @register_source(has_scheme("rtsp", "rtsps"), {"rtsp://host/stream": "a network camera"})
    def open_rtsp(uri: str, reconnect: float) -> FrameSource: ...

All these files are imported before the first source is opened, by --help too: what only one source
needs (a network library, say) is imported within its functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from tutelage.app.sources.frames import FrameSource
from tutelage.core.discovery import import_modules

Opener = Callable[[str, float], FrameSource]


@dataclass(frozen=True)
class UriForm:
    """What one opener takes, see `register_source`."""

    matches: Callable[[str], bool]
    examples: Mapping[str, str]
    place: int
    open: Opener


_forms: list[UriForm] = []


def register_source(
    matches: Callable[[str], bool], examples: Mapping[str, str], place: int = 100
) -> Callable[[Opener], Opener]:
    """Register a function that opens a source by its URI.

    It takes the URI and the seconds in which a source that was lost may come back.

    Parameters
    ----------
    matches : says whether a URI is of this form
    examples : lines for --help: an example of the URI -> what it is, up to 70 characters
    place : order in --help. A URI is tried in the reverse order: files, which take any path, have
        the lowest place and come last
    """

    def register(opener: Opener) -> Opener:
        _forms.append(UriForm(matches, examples, place, opener))
        return opener

    return register


def has_scheme(*schemes: str) -> Callable[[str], bool]:
    """Return what says whether a URI has one of these schemes (lower case)."""
    return lambda uri: "://" in uri and uri.partition("://")[0].lower() in schemes


@cache
def uri_forms() -> list[UriForm]:
    """Return all forms in the order of --help."""
    import_modules("tutelage.app.sources")
    return sorted(_forms, key=lambda form: form.place)
