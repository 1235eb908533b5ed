"""Results as pictures: annotated video, directory of annotated images, window."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tutelage.app.outputs.by_uri import Output, OutputError
from tutelage.app.outputs.video_writer import DRAWBACKS, VideoWriter, ffmpeg_has_h264, open_writer
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import shown_path

_USUAL_FPS = 25.0  # of a video made of images, which have no rate of their own
_SMALLEST_WIDTH = 320  # pixels; below this the text would not be readable
_LONGEST_ENLARGED = 2048  # pixels
_LONGEST = 8192  # pixels; JPEGs end at 65,500, most video codecs far before
_NAME_BYTES = 80  # of each part of a file name: three of them and more fit into 255
_FRAMES_PER_LOOK_AT_DISK = 32
_SPARE_BYTES = 1 << 20  # OpenCV does not tell of a full disk: seen before it comes to that


class VideoOutput(Output):
    """The frames with label and confidence written on them; frames without image are left out.

    The first frame gives the size; smaller images are enlarged, others fitted in.

    Parameters
    ----------
    path : its suffix is one of `VIDEO_CODES`
    fps : frames per second, None for the usual
    tell : takes a line for the user
    """

    own_thread = True

    def __init__(
        self, path: Path, fps: float | None, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        if not path.parent.is_dir():
            raise OutputError(f"{path}: No such file or directory")
        if "\ufffd" in shown_path(path):  # OpenCV crashes on those
            raise OutputError(f"{path}: OpenCV writes no video by a name that is not UTF-8")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise OutputError(f"{path}: Permission denied")
        if path.suffix.lower() == ".mp4":
            ffmpeg_has_h264()  # now: the first frame would wait for it
        self._path = path
        self._tell = tell
        self._fps = fps or _USUAL_FPS
        self._writer: VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def add(self, result: Result) -> None:
        image = result.frame.image
        if image is None:
            return
        if self._writer is None:
            self._writer = self._open(image)
        if self._written % _FRAMES_PER_LOOK_AT_DISK == 0:
            _check_space(self._path.parent)
        self._writer.write(annotate(result, *self._size))
        self._written += 1

    def _open(self, image: np.ndarray) -> VideoWriter:
        # Most codecs store colour at half the resolution: even sizes only.
        width, height = (max(2, side // 2 * 2) for side in readable_size(image))
        self._size = (width, height)
        found = open_writer(self._path, self._fps, self._size)
        if found is None:
            raise OutputError(f"{self._path}: OpenCV cannot write a video there")
        writer, code = found
        if self._path.suffix.lower() == ".mp4" and code in DRAWBACKS:
            self._tell(f"{self._path}: written as {DRAWBACKS[code]}; try: sudo apt install ffmpeg")
        return writer

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        # A writer whose disk was full says nothing: what can be read again is what counts.
        capture = cv2.VideoCapture(str(self._path))
        found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if found < self._written:
            raise OutputError(f"{self._path}: holds {found} of {self._written} frames")


def _check_space(folder: Path) -> None:
    if shutil.disk_usage(folder).free < _SPARE_BYTES:
        raise OutputError(f"{folder}: {os.strerror(28)}")  # ENOSPC


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
        # Names and labels come from strangers: no separators, no leading dots.
        parts = (f"{result.frame.index:06d}", Path(result.frame.name).stem, label)
        name = "_".join(_as_file_name(part) for part in parts)
        picture = annotate(result, *readable_size(image))
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._QUALITY])
        (self._folder / f"{name}.jpg").write_bytes(data.tobytes())


def _as_file_name(text: str) -> str:
    safe = re.sub(r"[^\w.#-]+", "-", text).encode("utf-8", "replace")
    return safe[:_NAME_BYTES].decode("utf-8", "ignore")


class Window(Output):
    """A window with the newest frame; Q, Esc or closing it ends the run."""

    look_seconds = 0.03
    _TITLE = "classify"

    def __init__(self, stop: Callable[[], None]) -> None:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise OutputError("window: there is no display; try --web and a browser")
        try:
            cv2.namedWindow(
                self._TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            )
        except cv2.error:
            raise OutputError(
                "window: this OpenCV was built without windows (opencv-python-headless); "
                "try --web and a browser, or: pip install opencv-python"
            ) from None
        self._stop = stop
        self._newest: Result | None = None
        self._shown = False

    def add(self, result: Result) -> None:
        if result.frame.image is not None:
            self._newest = result

    def look(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None and newest.frame.image is not None:
            picture = annotate(newest, *readable_size(newest.frame.image))
            cv2.imshow(self._TITLE, picture)
            if not self._shown:
                cv2.resizeWindow(self._TITLE, picture.shape[1], picture.shape[0])
                self._shown = True
        key = cv2.waitKey(1) & 0xFF
        closed = self._shown and cv2.getWindowProperty(self._TITLE, cv2.WND_PROP_VISIBLE) < 1
        if key in (ord("q"), 27) or closed:
            self._stop()

    def close(self) -> None:
        cv2.destroyAllWindows()


def readable_size(image: np.ndarray) -> tuple[int, int]:
    """Return width and height at which text can be read on an image: whole multiples of its own.

    Very long images are made smaller.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > _LONGEST:
        return max(1, width * _LONGEST // longest), max(1, height * _LONGEST // longest)
    enlarge = -(-_SMALLEST_WIDTH // width) if width < _SMALLEST_WIDTH else 1
    enlarge = max(1, min(enlarge, _LONGEST_ENLARGED // longest))
    return width * enlarge, height * enlarge


def annotate(result: Result, width: int, height: int) -> np.ndarray:
    """Return a result's image at a size, with its label and confidence; a new array."""
    assert result.frame.image is not None
    canvas = fit(result.frame.image, width, height)
    if result.top:
        label, confidence = result.top[0]
        _write_text(canvas, f"{label} {confidence:.1%}")
    else:
        _write_text(canvas, f"failed: {result.error}")
    return canvas


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the image scaled to fit into width x height, centred on black; a new array."""
    rows, columns = image.shape[:2]
    factor = min(width / columns, height / rows)
    size = max(1, round(columns * factor)), max(1, round(rows * factor))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    scaled = cv2.resize(image, size, interpolation=method)
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas


def _write_text(canvas: np.ndarray, text: str) -> None:
    """Write white text on a dark bar at the bottom, sized by the image; OpenCV has ASCII only."""
    height, width = canvas.shape[:2]
    text = text.encode("ascii", "replace").decode()
    scale = max(0.5, min(width, height) / 600)
    (_, text_height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    bar = text_height + descent + 8
    canvas[height - bar :] //= 4
    origin = (6, height - descent - 4)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
    cv2.putText(canvas, text, origin, font, scale, white, 1, cv2.LINE_AA)
