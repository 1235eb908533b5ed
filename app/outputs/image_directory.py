"""Output of annotated images to a directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import cv2

from tutelage.app.outputs.annotation import annotate, readable_size
from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext, is_folder, register_output
from tutelage.app.pipeline.result import Result

_NAME_BYTES = 80  # of each of the three parts of a file name, which has at most 255


@register_output(
    is_folder,
    {"seen/": "a directory of annotated frames as JPEGs"},
    place=30,
)
def open_directory(uri: str, _context: OutputContext) -> Output:
    """Open a directory, which is created if it does not exist.

    Raises
    ------
    OutputError
        The directory cannot be created or written.
    """
    return ImageDirectory(Path(uri))


class ImageDirectory(Output):
    """One annotated JPEG per frame, named by number, frame and label."""

    own_thread = True
    _QUALITY = 92

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}") from error
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: Permission denied")
        self._folder = folder

    def add(self, result: Result) -> None:
        image = result.frame.image
        if image is None:
            return
        label = result.top[0][0] if result.top else "failed"
        # Names and labels are untrusted: no separators, no leading dots.
        parts = (f"{result.frame.index:06d}", Path(result.frame.name).stem, label)
        name = "_".join(_as_file_name(part) for part in parts)
        picture = annotate(result, *readable_size(image))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._QUALITY])
        (self._folder / f"{name}.jpg").write_bytes(data.tobytes())


def _as_file_name(text: str) -> str:
    safe = re.sub(r"[^\w.#-]+", "-", text).encode("utf-8", "replace")
    return safe[:_NAME_BYTES].decode("utf-8", "ignore")
