"""Sources given by a path: an image, a directory, a glob pattern, or a video."""

from __future__ import annotations

import glob
from pathlib import Path

from tutelage.app.sources.frames import FrameSource, SourceError
from tutelage.app.sources.images import ImageSource
from tutelage.app.sources.registry import has_scheme, register_source
from tutelage.app.sources.video import VideoSource
from tutelage.core.images.image_files import IMAGE_SUFFIXES, advice_for, find_images, images_among

_is_file_url = has_scheme("file")


@register_source(
    lambda uri: "://" not in uri or _is_file_url(uri),
    {
        "photos/": "every image in the directory and below it",
        "'photos/*.jpg'": "the files that match (quote the pattern)",
        "cat.png, walk.mp4": "an image, a video file",
    },
    place=0,
)
def open_files(uri: str, _reconnect: float) -> FrameSource:
    """Open the images or the video at a path, or the images that match a pattern.

    Raises
    ------
    SourceError
        The path does not exist, or has no readable image or video.
    """
    if _is_file_url(uri):
        uri = uri[len("file://") :]
    path = Path(uri)
    if path.is_dir():
        return _open_folder(path)
    if path.exists():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageSource(path.parent, [path])
        return _open_video(path)
    if not glob.has_magic(uri):
        raise SourceError(f"{uri}: no such file or directory")
    # Path.glob does not accept absolute patterns.
    found = sorted(Path(name) for name in glob.glob(uri, recursive=True))  # noqa: PTH207
    among = images_among(found)
    if not among.images:
        skipped = f"; {line}" if (line := among.report()) else ""
        raise SourceError(f"{uri}: matches {len(found)} files, no image among them{skipped}")
    return ImageSource(_common_folder(among.images), among.images, among.skipped)


def _open_folder(folder: Path) -> ImageSource:
    """Return a source of the images in a directory and below it, sorted."""
    try:
        found = find_images(folder)
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror or error}") from error
    if not found.images:
        skipped = f"; {line}" if (line := found.report()) else ""
        kinds = " ".join(IMAGE_SUFFIXES)
        raise SourceError(
            f"{folder}: no images in this directory or below it (looked for {kinds}){skipped}"
        )
    return ImageSource(folder, found.images, found.skipped)


def _open_video(path: Path) -> FrameSource:
    try:
        return VideoSource(path)
    except SourceError as error:
        if advice := advice_for(path):
            raise SourceError(f"{error}; {path.suffix} is {advice}") from None
        raise


def _common_folder(paths: list[Path]) -> Path:
    """Return the deepest directory that contains all paths."""
    folder = paths[0].parent
    while not all(folder in path.parents for path in paths):
        folder = folder.parent
    return folder
