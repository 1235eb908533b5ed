"""Opening of sources by URI.

    source = open_source("photos/")
    for frame in source: ...

A frame that cannot be decoded is yielded with an error instead of an image, so that every
consumer sees it and counts agree. Only a source that fails as a whole raises an exception.
"""

from __future__ import annotations

import os

from tutelage.app.sources.frames import FrameSource, SourceError
from tutelage.app.sources.registry import SOURCES


def open_source(
    uri: str | os.PathLike[str], reconnect: float = 0.0, live: bool | None = None
) -> FrameSource:
    """Open a source of frames by its URI.

    Parameters
    ----------
    uri : path, camera, URL or another form of `SOURCES`
    reconnect : time in which a lost camera or stream may come back, s
    live : drop the oldest frames rather than make the source wait; None for the default of the
        kind of source

    Raises
    ------
    SourceError
        The source does not exist or is empty; CameraError for a camera or stream.
    """
    uri = os.fspath(uri)
    opener = SOURCES.opener_of(uri)
    if opener is None:
        scheme = uri.partition("://")[0].lower()
        raise SourceError(f"{scheme}:// is not a known kind of source; --help lists them")
    source = opener(uri, reconnect)
    if live is not None:
        source.live = live
    return source
