"""Crop, resize and order the colours of images, identically in training, timing and on the board.

A different way of shrinking images would give a network other pixels, so there is only one.
"""

from __future__ import annotations

import cv2
import numpy as np

from tutelage.core.images.input_form import InputForm

_SIZES_KEPT = 16  # buffers for intermediate sizes; a video needs a handful
_BYTES_KEPT = 12 << 20  # per buffer: half of 4K in bytes; larger ones, for photos, are not kept


class ImageFitter:
    """Fit BGR images of any size to one model. Owns its buffers: use one instance per thread."""

    def __init__(self, form: InputForm) -> None:
        self._form = form
        self._resized = np.empty((form.height, form.width, 3), np.uint8)
        self._averages = np.empty((form.height, form.width, 3), np.float32)
        self._kept: dict[tuple[tuple[int, ...], type], np.ndarray] = {}
        channels = 1 if form.colour == "grey" else 3
        self._coloured = np.empty((form.height, form.width, channels), np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Fit one image.

        Parameters
        ----------
        image : uint8, (height, width, 3), BGR as OpenCV reads it

        Returns
        -------
        uint8, (model height, model width, channels): `image` itself, a view of it or a buffer that
        the next call overwrites
        """
        return self._order_colours(self.resize(image))

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Crop and resize one image as `__call__` does, but keep its colour order, BGR."""
        size = (self._form.width, self._form.height)
        if self._form.crop == "center":
            image = center_crop(image, *size)
        height, width = image.shape[:2]
        # OpenCV averages whole pixels six times as fast as fractions of pixels: halve first.
        while width >= 2 * size[0] and height >= 2 * size[1]:
            width, height = width // 2, height // 2
            even = image[: 2 * height, : 2 * width]
            half = self._buffer((height, width, 3), np.uint8)
            image = cv2.resize(even, (width, height), half, interpolation=cv2.INTER_AREA)
        if (width, height) == size:
            return image
        shrinks, grows = width > size[0] or height > size[1], width < size[0] or height < size[1]
        parts = width % size[0] or height % size[1]
        if shrinks and parts and not grows and 12 * width * height <= _BYTES_KEPT:
            return self._average(image, size)
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(image, size, self._resized, interpolation=method)

    def _average(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Average fractions of pixels in float32.

        For uint8, OpenCV computes the same sums but takes a quarter longer, as it converts every
        pixel each time it uses it. Not for an image that grows in one direction: OpenCV then
        interpolates, and does so with fewer digits for bytes.
        """
        floats = self._buffer(image.shape, np.float32)
        np.copyto(floats, image)
        cv2.resize(floats, size, self._averages, interpolation=cv2.INTER_AREA)
        return cv2.convertScaleAbs(self._averages, self._resized)

    def _buffer(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return a buffer for an image of an intermediate size; small buffers are kept."""
        key = (shape, dtype)
        found = self._kept.get(key)
        if found is None:
            found = np.empty(shape, dtype)
            if found.nbytes <= _BYTES_KEPT:
                if len(self._kept) >= _SIZES_KEPT:  # every image has another size
                    self._kept.clear()
                self._kept[key] = found
        return found

    def _order_colours(self, image: np.ndarray) -> np.ndarray:
        if self._form.colour == "bgr":
            return image
        code = cv2.COLOR_BGR2GRAY if self._form.colour == "grey" else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(image, code, self._coloured).reshape(self._coloured.shape)


def center_crop(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the largest centred part of an image with the aspect ratio width:height, as a view."""
    rows, columns = image.shape[:2]
    part_columns = max(1, min(columns, round(rows * width / height)))
    part_rows = max(1, min(rows, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]
