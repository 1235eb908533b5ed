"""Where frames come from, by URI.

    source = open_source("photos/")
    for frame in source: ...

A frame that cannot be decoded keeps its place, with an error in place of its image, so that
every consumer sees it and the count stays whole. Only a source that breaks off altogether
raises.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from tutelage.app.sources.files import ImageSource, VideoSource, folder_source
from tutelage.app.sources.frames import Source, SourceError
from tutelage.app.sources.jpeg_stream import StdinSource
from tutelage.app.sources.live import CameraSource, RtspSource, check_url, open_http
from tutelage.core.images.files import IMAGE_SUFFIXES, advice_for, images_among

FORMS = """\
  photos/                  every image in the directory and below it
  'photos/*.jpg'           the files that match (quoted: the shell would take it apart)
  cat.png, walk.mp4        an image, a video file
  0, /dev/video0           a camera; with options: 0,size=1280x720,fps=30,format=MJPG
  rtsp://host/stream       a network camera
  http://host/video.mjpg   a stream of JPEGs (MJPEG), or a video by its URL
  -                        JPEGs one after the other on standard input"""


def open_source(
    uri: str | os.PathLike[str], reconnect: float = 0.0, live: bool | None = None
) -> Source:
    """Open a source of frames by its URI; `FORMS` shows the kinds.

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
    source = _open(os.fspath(uri), reconnect)
    if live is not None:
        source.live = live
    return source


def _open(uri: str, reconnect: float) -> Source:
    if uri == "-":
        return StdinSource()
    if uri.partition(",")[0].isdigit() or uri.startswith("/dev/video"):
        return CameraSource(uri, reconnect)
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme in ("rtsp", "rtsps", "http", "https"):
        check_url(uri)
    if scheme in ("rtsp", "rtsps"):
        return RtspSource(uri, reconnect)
    if scheme in ("http", "https"):
        return open_http(uri, reconnect)
    if scheme == "file":
        uri = uri[len("file://") :]
    elif scheme:
        raise SourceError(f"{scheme}:// is not a source known here; --help lists those that are")
    return _open_files(uri)


def _open_files(uri: str) -> Source:
    path = Path(uri)
    if path.is_dir():
        return folder_source(path)
    if path.exists():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageSource(path.parent, [path])
        return _open_video(path)
    if not glob.has_magic(uri):
        raise SourceError(f"{uri}: no such file or directory")
    # Path.glob takes no absolute pattern.
    found = sorted(Path(name) for name in glob.glob(uri, recursive=True))  # noqa: PTH207
    among = images_among(found)
    if not among.images:
        skipped = f"; {line}" if (line := among.report()) else ""
        raise SourceError(f"{uri}: matches {len(found)} files, no image among them{skipped}")
    return ImageSource(_common_folder(among.images), among.images, among.skipped)


def _open_video(path: Path) -> Source:
    try:
        return VideoSource(path)
    except SourceError as error:
        if advice := advice_for(path):
            raise SourceError(f"{error}; {path.suffix} is {advice}") from None
        raise


def _common_folder(paths: list[Path]) -> Path:
    """Return the deepest directory that holds all paths."""
    folder = paths[0].parent
    while not all(folder in path.parents for path in paths):
        folder = folder.parent
    return folder
