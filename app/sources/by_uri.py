"""Opening of sources by URI: the implementation of `tutelage.open`.

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
    uri : path of an image, directory or video, a camera, a URL, or another form that the help of
        `tutelage classify` lists
    reconnect : time in which a lost camera or stream may come back, s; 0 for none
    live : drop the oldest frames rather than make the source wait; None for the default of the
        kind of source

    Returns
    -------
    FrameSource
        The open source, which yields its frames; a ``with`` block closes it

    Raises
    ------
    SourceError
        The source does not exist, is empty, or is of an unknown kind.
    CameraError
        A camera or stream cannot be opened. A SourceError.
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
