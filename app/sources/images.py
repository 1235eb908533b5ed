"""Image files as a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.app.sources.frames import Frame, FrameSource, shown_path
from tutelage.core.images.decoder import read_image
from tutelage.core.images.image_files import skipped_line


class ImageSource(FrameSource):
    """Image files, in the given order. The thread that preprocesses a frame reads its file.

    Parameters
    ----------
    root : directory to which the names and folders of frames are relative
    paths : image files
    skipped : number of other files found, by reason
    """

    needs_decoding = True
    at_hand = True

    def __init__(self, root: Path, paths: list[Path], skipped: Counter[str] | None = None) -> None:
        self.name = shown_path(root if len(paths) != 1 else paths[0])
        self._skipped = +(skipped or Counter())
        self.length = len(paths)
        self._root = root
        self._paths = paths

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            inside = path.relative_to(self._root)
            folders = tuple(map(shown_path, inside.parts[:-1]))
            decode = partial(read_image, path)
            yield Frame(index, shown_path(inside), folders=folders, decode=decode)

    def reads(self, path: Path) -> bool:
        # Most outputs are new files, for which no path of perhaps many images must be resolved.
        return path.exists() and path.resolve() in {each.resolve() for each in self._paths}

    def warnings(self) -> list[str]:
        """Return a line about skipped files, if there are any."""
        line = skipped_line(self._skipped)
        return [f"{self.name}: {line}"] if line else []

    def report(self) -> dict[str, Any]:
        """Return the number of skipped files by reason; empty without any."""
        return {"skipped": dict(self._skipped)} if self._skipped else {}
