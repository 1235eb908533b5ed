"""Find image files in folders: accepted suffixes, files found, files skipped and why.

    found = find_images(Path("photos"))
    found.images            # sorted
    found.report()          # "skipped 16 files: 16 .heic (convert to JPEG)"

Training, `bench`, `inspect` and the application all find their images with this module, so that
they use the same ones.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.text import counted

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
"""Suffixes of images in a folder, in lower case; `tutelage.core.images.decoder` decodes them."""

_ADVICE = {
    **dict.fromkeys((".heic", ".heif", ".avif", ".gif", ".jp2"), "not read; convert to JPEG"),
    **dict.fromkeys((".dng", ".cr2", ".nef", ".arw"), "raw; convert to JPEG"),
}
_VIDEOS = dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "a video")
_NOT_ENTERED = {"__MACOSX"}  # in addition to folders whose names begin with a dot
_REASONS_SHOWN = 8
_SUFFIX = re.compile(r"\.[a-z0-9_-]{1,12}")  # only these are shown: names may contain anything


@dataclass
class FoundImages:
    """The images in a folder tree, and the number of skipped files.

    Attributes
    ----------
    images : sorted by path
    skipped : number of files by reason: a suffix such as ".heic", or a few words
    """

    images: list[Path] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def report(self) -> str:
        """Return one line about the skipped files; "" if there are none."""
        return skipped_line(self.skipped)


def skipped_line(skipped: Counter[str]) -> str:
    """Return one line about skipped files, most frequent reasons first; "" if there are none."""
    total = sum(skipped.values())
    if not total:
        return ""
    shown = sorted(skipped.items(), key=lambda each: (-each[1], each[0]))[:_REASONS_SHOWN]
    parts = [f"{count} {why}" + _advice(why) for why, count in shown]
    if rest := total - sum(count for _, count in shown):
        parts.append(f"{rest} others")
    return f"skipped {counted(total, 'file')}: {', '.join(parts)}"


def _advice(reason: str) -> str:
    what = _ADVICE.get(reason) or _VIDEOS.get(reason)
    return f" ({what})" if what else ""


def class_folders(folder: Path) -> list[Path]:
    """Return the class folders, sorted: the subfolders that `find_images` enters.

    Raises
    ------
    OSError
        The folder cannot be listed.
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and not _is_left_alone(path.name)
    )


def _is_left_alone(name: str) -> bool:
    return name.startswith(".") or name in _NOT_ENTERED


def advice_for(path: Path) -> str:
    """Return advice about a picture format that is not supported, by suffix; "" for other files."""
    return _ADVICE.get(path.suffix.lower(), "")


def images_among(paths: Iterable[Path]) -> FoundImages:
    """Sort given paths, such as those of a glob pattern, into images and skipped files.

    Folders are ignored.
    """
    found = FoundImages()
    for path in paths:
        if not path.is_dir() and _is_image(path.name, path, found.skipped):
            found.images.append(path)
    found.images.sort()
    return found


def find_images(folder: Path) -> FoundImages:
    """Find the images in a folder and its subfolders.

    Folders that are hidden (.ipynb_checkpoints) or named __MACOSX are skipped without being
    counted. Counted are hidden images (a Mac's ._name.png), files with other suffixes, links to
    folders (which could be cyclic) and files that are not regular. A link to a file counts as the
    file; a dangling link is in `images`, so that reading it reports its name.

    Raises
    ------
    OSError
        `folder` itself cannot be listed; a folder below it is counted as skipped.
    """
    found = FoundImages()
    found.images = [Path(path) for path in walk_images(folder, found.skipped)]
    return found


def walk_images(folder: Path, skipped: Counter[str]) -> Iterator[str]:
    """Yield the paths that `find_images` finds, in its order. Only the names in the folders on the
    current path are in memory, so a tree may have millions of files.

    Parameters
    ----------
    skipped : number of skipped files by reason, which is added to

    Raises
    ------
    OSError
        As for `find_images`.
    """
    levels = [(str(folder), _entries(str(folder), skipped))]
    while levels:
        place, names = levels[-1]
        if not names:
            levels.pop()
            continue
        path = os.path.join(place, names.pop())  # noqa: PTH118  (a Path would take ten times longer)
        if not path.endswith(os.sep):
            yield path
            continue
        try:
            levels.append((path, _entries(path, skipped)))
        except OSError as error:
            skipped[f"in an unreadable folder: {error.strerror or error}"] += 1


def _entries(folder: str, skipped: Counter[str]) -> list[str]:
    """Return the names of a folder's images, and of subfolders to enter with a trailing separator,
    in reverse order, so that the first name is at the end of the list."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not _is_left_alone(entry.name):
                    names.append(entry.name + os.sep)
            elif _is_folder_link(entry):
                if not _is_left_alone(entry.name):
                    skipped["behind a link to a folder"] += 1
            elif _is_image(entry.name, entry, skipped):
                names.append(entry.name)
    names.sort(key=lambda name: name.removesuffix(os.sep), reverse=True)
    return names


def _is_image(name: str, file: Path | os.DirEntry[str], skipped: Counter[str]) -> bool:
    """Return whether a file, or a link to one, is an image; if not, count it as skipped."""
    suffix = Path(name).suffix.lower()
    if name.startswith("."):
        if suffix in IMAGE_SUFFIXES:
            skipped["hidden"] += 1
    elif suffix not in IMAGE_SUFFIXES:
        skipped[suffix if _SUFFIX.fullmatch(suffix) else "with another suffix or none"] += 1
    elif not _is_readable_kind(file):
        skipped["not regular files"] += 1
    else:
        return True
    return False


def _is_folder_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_readable_kind(file: Path | os.DirEntry[str]) -> bool:
    """Return whether this is a regular file, a link to one or a dangling link; opening a pipe would
    block for ever."""
    try:
        if isinstance(file, os.DirEntry) and file.is_file(follow_symlinks=False):
            return True  # known from the directory entry, without a stat call per file
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True


def label_of(folders: Collection[str], labels: Collection[str]) -> str | None:
    """Return an image's label: the outermost of its folders that is one of `labels`.

    Parameters
    ----------
    folders : names of the folders that contain the image, outermost first, below the folder that
        the user named
    labels : the model's labels; "Bag/Coat/x.png" is a Bag, as in training
    """
    for name in folders:  # a loop: faster than a generator for camera images, which have no folders
        if name in labels:
            return name
    return None


def broken_line(broken: list[str], shown: int = 5) -> str:
    """Return one line that names images which cannot be read; "" if there are none.

    Parameters
    ----------
    broken : "path: reason" of each image
    shown : largest number of images to name
    """
    if not broken:
        return ""
    rest = f"; and {len(broken) - shown} more" if len(broken) > shown else ""
    return f"left out {counted(len(broken), 'broken image')}: {'; '.join(broken[:shown])}{rest}"
