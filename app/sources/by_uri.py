"""Where frames come from, by URI.

    source = open_source("photos/")
    for frame in source: ...

A frame that cannot be decoded keeps its place, with an error in place of its image, so that
every consumer sees it and the count stays whole. Only a source that breaks off altogether
raises.
"""

from __future__ import annotations

import os

from tutelage.app.sources.frames import FrameSource, SourceError
from tutelage.app.sources.registry import SOURCES


def open_source(
    uri: str | os.PathLike[str], reconnect: float = 0.0, live: bool | None = None
) -> FrameSource:
    """Open a source of frames by its URI; `SOURCES` has the forms.

    Parameters
    ----------
    uri : what to open
    reconnect : seconds in which a camera or stream that was lost may come back
    live : drop the oldest frames rather than make the source wait; None for what fits its kind

    Raises
    ------
    SourceError
        There is nothing of that name, or nothing in it; CameraError for a camera or stream.
    """
    uri = os.fspath(uri)
    opener = SOURCES.opener_of(uri)
    if opener is None:
        scheme = uri.partition("://")[0].lower()
        raise SourceError(f"{scheme}:// is not a source known here; --help lists those that are")
    source = opener(uri, reconnect)
    if live is not None:
        source.live = live
    return source
