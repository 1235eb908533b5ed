"""Images annotated with their label and confidence."""

from __future__ import annotations

import cv2
import numpy as np

from tutelage.app.pipeline.result import Result

_SMALLEST_WIDTH = 320  # pixels; below this the text would not be readable
_LONGEST_ENLARGED = 2048  # pixels
_LONGEST = 8192  # pixels; JPEGs have at most 65,500, most video codecs far fewer


def readable_size(image: np.ndarray) -> tuple[int, int]:
    """Return a width and height, pixels, at which text is readable on an image.

    They are a whole multiple of the image's own. Very long images are reduced.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > _LONGEST:
        return max(1, width * _LONGEST // longest), max(1, height * _LONGEST // longest)
    enlarge = -(-_SMALLEST_WIDTH // width) if width < _SMALLEST_WIDTH else 1
    enlarge = max(1, min(enlarge, _LONGEST_ENLARGED // longest))
    return width * enlarge, height * enlarge


def annotate(result: Result, width: int, height: int) -> np.ndarray:
    """Return a copy of a result's image, scaled to a size and annotated with its best label.

    Returns
    -------
    uint8 (height, width, 3), BGR
    """
    assert result.frame.image is not None
    canvas = fit(result.frame.image, width, height)
    if result.top:
        label, confidence = result.top[0]
        _write_text(canvas, f"{label} {confidence:.1%}")
    else:
        _write_text(canvas, f"failed: {result.error}")
    return canvas


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return a copy of an image scaled to fit into width x height, centred on black."""
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
    """Write white text on a dark bar at the bottom, in ASCII, which is all that OpenCV draws."""
    height, width = canvas.shape[:2]
    text = text.encode("ascii", "replace").decode()
    scale = max(0.5, min(width, height) / 600)
    (_, text_height), descent = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    bar = text_height + descent + 8
    canvas[height - bar :] //= 4
    origin = (6, height - descent - 4)
    font, white = cv2.FONT_HERSHEY_SIMPLEX, (255, 255, 255)
    cv2.putText(canvas, text, origin, font, scale, white, 1, cv2.LINE_AA)
