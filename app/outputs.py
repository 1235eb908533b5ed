"""Where results go: lines on the terminal, JSONL, CSV, an annotated video; chosen by suffix."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

import cv2
import numpy as np

from app.pipeline import Result

_VIDEO_CODES = {".mp4": "mp4v", ".avi": "MJPG"}
_USUAL_FPS = 25.0  # of a video made of images, which have no rate of their own
_SMALLEST_WIDTH = 320  # pixels; below this the text would not be readable


class OutputError(Exception):
    """An output that cannot be written; the text is one line for the user."""


class Output(Protocol):
    def add(self, result: Result) -> None:
        """Write one result; they come in order."""

    def close(self) -> None:
        """Complete what was written."""


def open_output(uri: str, fps: float | None = None) -> Output:
    """Open an output by its suffix: .jsonl, .csv, .mp4 or .avi.

    Parameters
    ----------
    uri : path of the file, written anew
    fps : frames per second of a video, None for the usual

    Raises
    ------
    OutputError
        The suffix is unknown, or the file cannot be made there.
    """
    path = Path(uri)
    kind = path.suffix.lower()
    if kind in _VIDEO_CODES:
        return VideoOutput(path, fps or _USUAL_FPS)
    makers: dict[str, Callable[[TextIO], Output]] = {".jsonl": JsonLines, ".csv": CsvTable}
    if kind not in makers:
        known = " ".join([*makers, *_VIDEO_CODES])
        raise OutputError(f"{uri}: the suffix says what is written; known are {known}")
    try:
        return makers[kind](path.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise OutputError(f"{uri}: {error.strerror or error}") from error


class Terminal:
    """One aligned line per frame: name, label, confidence; further classes behind."""

    def __init__(self, label_width: int, file: TextIO | None = None) -> None:
        self._file = file or sys.stdout
        self._label_width = min(label_width, 24)
        self._name_width = 0

    def add(self, result: Result) -> None:
        self._name_width = max(self._name_width, len(result.frame.name))
        name = result.frame.name.ljust(self._name_width)
        print(f"{name}  {self._verdict(result)}".rstrip(), file=self._file)

    def _verdict(self, result: Result) -> str:
        if result.error is not None:
            return f"failed: {result.error}"
        width = self._label_width
        shown = "  ".join(f"{label:{width}} {confidence:7.2%}" for label, confidence in result.top)
        return shown if result.correct is not False else f"{shown}  (is {result.true_label})"

    def close(self) -> None:
        self._file.flush()


class JsonLines:
    """One JSON object per frame and line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, result: Result) -> None:
        self._file.write(json.dumps(_record(result), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class CsvTable:
    """A CSV table, one row per frame."""

    _COLUMNS = ("index", "name", "label", "confidence", "true_label", "error", "total_ms")

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.DictWriter(file, self._COLUMNS, extrasaction="ignore")
        self._writer.writeheader()

    def add(self, result: Result) -> None:
        record = _record(result)
        record["total_ms"] = record["milliseconds"].get("total")
        self._writer.writerow(record)

    def close(self) -> None:
        self._file.close()


def _record(result: Result) -> dict[str, Any]:
    label, confidence = result.top[0] if result.top else (None, None)
    return {
        "index": result.frame.index,
        "name": result.frame.name,
        "label": label,
        "confidence": confidence,
        "top": result.top,
        "true_label": result.true_label,
        "error": result.error,
        "milliseconds": {stage: round(value, 4) for stage, value in result.milliseconds.items()},
    }


class VideoOutput:
    """The frames with label and confidence written on them; frames without image are left out.

    The first frame gives the size; smaller images are enlarged, others fitted in.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if not path.parent.is_dir():
            raise OutputError(f"{path}: No such file or directory")
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, result: Result) -> None:
        image = result.frame.image
        if image is None:
            return
        if self._writer is None:
            self._writer = self._open(image)
        canvas = fit(image, *self._size)
        if result.top:
            label, confidence = result.top[0]
            _write_text(canvas, f"{label} {confidence:.1%}")
        else:
            _write_text(canvas, f"failed: {result.error}")
        self._writer.write(canvas)

    def _open(self, image: np.ndarray) -> cv2.VideoWriter:
        height, width = image.shape[:2]
        enlarge = -(-_SMALLEST_WIDTH // width) if width < _SMALLEST_WIDTH else 1
        # Most codecs store colour at half the resolution: even sizes only.
        self._size = (width * enlarge // 2 * 2, max(2, height * enlarge // 2 * 2))
        code = cv2.VideoWriter.fourcc(*_VIDEO_CODES[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._path), code, self._fps, self._size)
        if not writer.isOpened():
            raise OutputError(f"{self._path}: OpenCV cannot write a video there")
        return writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


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
