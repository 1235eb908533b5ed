"""From a camera's image to the DPU's int8 input: crop, resize, colour order, one table look-up.

A pixel has 256 possible values, so mean, scale and quantisation together are a table of 256
int8 values per channel. `cv2.LUT` writes through it straight into the runner's own buffer:
no float image is made and nothing is copied after that.
"""

from __future__ import annotations

import cv2
import numpy as np

from app.model import InputForm

_SIZES_KEPT = 16  # buffers for intermediate sizes; a video needs a handful


def quantisation_table(form: InputForm, fix_point: int) -> np.ndarray:
    """Return the table from pixel values to the model's int8 input.

    Value v of channel c becomes clip(floor((v - mean[c]) * scale[c] * 2**fix_point + 1/2),
    -128, 127), the rounding of the DPU's own float2fix.

    Returns
    -------
    int8, shape (1, 256, channels), as `cv2.LUT` takes it
    """
    values = np.arange(256, dtype=np.float64)[:, np.newaxis]
    mean, scale = np.array(form.mean), np.array(form.scale)
    scaled = np.floor((values - mean) * scale * 2.0**fix_point + 0.5)
    table = np.clip(scaled, -128, 127).astype(np.int8)
    return np.ascontiguousarray(table[np.newaxis])


class Preprocessor:
    """Turns BGR images of any size into one model's input. Owns its buffers: one per thread."""

    def __init__(self, form: InputForm, fix_point: int) -> None:
        self._form = form
        self._table = quantisation_table(form, fix_point)
        self._resized = np.empty((form.height, form.width, 3), np.uint8)
        self._halves: dict[tuple[int, int, int], np.ndarray] = {}
        channels = len(form.mean)
        self._coloured = np.empty((form.height, form.width, channels), np.uint8)

    def __call__(self, image: np.ndarray, target: np.ndarray) -> None:
        """Write an image into a runner's input.

        Parameters
        ----------
        image : uint8, (height, width, 3), BGR as OpenCV reads it
        target : int8, (model height, model width, channels), C order; overwritten
        """
        if self._form.crop == "center":
            image = center_crop(image, self._form.width, self._form.height)
        image = self._order_colours(self._resize(image))
        written = cv2.LUT(image, self._table, target)
        # OpenCV allocates anew, silently, where the target's form does not suit it.
        if written is not target and not np.shares_memory(written, target):
            target[...] = written.reshape(target.shape)

    def _resize(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = (self._form.width, self._form.height)
        # OpenCV averages pairs of pixels six times as fast as parts of pixels: halve first.
        while width >= 2 * size[0] and height >= 2 * size[1]:
            width, height = width // 2, height // 2
            even = image[: 2 * height, : 2 * width]
            half = self._half((height, width, 3))
            image = cv2.resize(even, (width, height), half, interpolation=cv2.INTER_AREA)
        if (width, height) == size:
            return image
        shrinks = width > size[0] or height > size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(image, size, self._resized, interpolation=method)

    def _half(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Return a buffer for an image on its way to the model's size, the same one each time."""
        if shape not in self._halves:
            if len(self._halves) >= _SIZES_KEPT:  # images of ever new sizes
                self._halves.clear()
            self._halves[shape] = np.empty(shape, np.uint8)
        return self._halves[shape]

    def _order_colours(self, image: np.ndarray) -> np.ndarray:
        if self._form.colour == "bgr":
            return image
        code = cv2.COLOR_BGR2GRAY if self._form.colour == "grey" else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(image, code, self._coloured)


def center_crop(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the largest middle part of an image with the aspect of width x height, a view."""
    rows, columns = image.shape[:2]
    part_columns = max(1, min(columns, round(rows * width / height)))
    part_rows = max(1, min(rows, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]
