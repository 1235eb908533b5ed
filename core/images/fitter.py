"""Crop, resize and order the colours of images: the same for training, timing and the board.

A network sees other pixels where its images are made smaller in another way, so there is one.
"""

from __future__ import annotations

import cv2
import numpy as np

from tutelage.core.images.input_form import InputForm

_SIZES_KEPT = 16  # buffers for intermediate sizes; a video needs a handful
_PIXELS_KEPT = 1 << 22  # of one of them, 12 MiB: half of 4K; a large photo's comes and goes


class ImageFitter:
    """Makes BGR images of any size fit one model. Owns its buffers: one per thread."""

    def __init__(self, form: InputForm) -> None:
        self._form = form
        self._resized = np.empty((form.height, form.width, 3), np.uint8)
        self._halves: dict[tuple[int, int, int], np.ndarray] = {}
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
        if self._form.crop == "center":
            image = center_crop(image, self._form.width, self._form.height)
        return self._order_colours(self._resize(image))

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
        """Return a buffer for an image on its way to the model's size; small ones are kept."""
        if shape[0] * shape[1] > _PIXELS_KEPT:
            return np.empty(shape, np.uint8)
        if shape not in self._halves:
            if len(self._halves) >= _SIZES_KEPT:  # images of ever new sizes
                self._halves.clear()
            self._halves[shape] = np.empty(shape, np.uint8)
        return self._halves[shape]

    def _order_colours(self, image: np.ndarray) -> np.ndarray:
        if self._form.colour == "bgr":
            return image
        code = cv2.COLOR_BGR2GRAY if self._form.colour == "grey" else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(image, code, self._coloured).reshape(self._coloured.shape)


def center_crop(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the largest middle part of an image with the aspect of width x height, a view."""
    rows, columns = image.shape[:2]
    part_columns = max(1, min(columns, round(rows * width / height)))
    part_rows = max(1, min(rows, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]
