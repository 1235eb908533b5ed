"""Convert a picture to the DPU's int8 input: crop, resize, colour order, one table look-up.

`cv2.LUT` writes its results straight into the runner's own buffer, or `cv2.merge` writes the planes
that were looked up: no float input is created, and nothing is copied afterwards.
"""

from __future__ import annotations

import cv2
import numpy as np

from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import InputForm, int8_table

_PIXELS_OF_PLANES = 1 << 14
"""Least number of pixels at which splitting the channels pays off: see `Preprocessor`."""


class Preprocessor:
    """Converts BGR images of any size to one model's input. Owns its buffers: one per thread.

    OpenCV's look-up takes about half the time with one table for all channels. So channels with the
    same table are looked up together, and the channels of large images one by one.
    """

    def __init__(self, form: InputForm, fix_point: int) -> None:
        self._fit = ImageFitter(form)
        table = int8_table(form, fix_point)
        self._one_table = form.channels > 1 and bool((table == table[:, :1]).all())
        # (256,) or (1, 256, channels), as `cv2.LUT` requires.
        self._table = np.ascontiguousarray(table[:, 0] if self._one_table else table[np.newaxis])
        several = form.channels > 1 and not self._one_table
        self._apart = several and form.width * form.height >= _PIXELS_OF_PLANES
        if self._apart:
            # Separate arrays: OpenCV takes twice as long if they are parts of one array.
            shape = (form.height, form.width)
            self._planes = [np.empty(shape, np.uint8) for _ in range(3)]
            self._values = [np.empty(shape, np.int8) for _ in range(3)]
            self._order = slice(None, None, -1 if form.colour == "rgb" else 1)  # of the BGR planes
            self._tables = np.ascontiguousarray(table.T)[self._order]

    def __call__(self, image: np.ndarray, target: np.ndarray) -> None:
        """Write an image into a runner's input.

        Parameters
        ----------
        image : uint8, (height, width, 3), BGR as OpenCV reads it
        target : int8, (model height, model width, channels), C order; overwritten
        """
        into = target
        if self._one_table:
            into = target.reshape(len(target), -1)
            written = cv2.LUT(self._fit(image).reshape(into.shape), self._table, into)
        elif self._apart:
            written = self._by_planes(self._fit.resize(image), into)
        else:
            written = cv2.LUT(self._fit(image), self._table, into)
        # OpenCV silently allocates another array if the target's layout does not suit it.
        if written is not into and not np.shares_memory(written, target):
            target[...] = written.reshape(target.shape)

    def _by_planes(self, image: np.ndarray, target: np.ndarray) -> np.ndarray:
        planes = zip(cv2.split(image, self._planes), self._tables, self._values, strict=True)
        values = [cv2.LUT(plane, table, into) for plane, table, into in planes]
        return cv2.merge(values[self._order], target)
