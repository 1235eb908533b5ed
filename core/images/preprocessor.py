"""From a picture to the DPU's int8 input: crop, resize, colour order, one table look-up.

`cv2.LUT` writes through the table straight into the runner's own buffer: no float image is made
and nothing is copied after that.
"""

from __future__ import annotations

import cv2
import numpy as np

from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import InputForm, int8_table


class Preprocessor:
    """Turns BGR images of any size into one model's input. Owns its buffers: one per thread."""

    def __init__(self, form: InputForm, fix_point: int) -> None:
        self._fit = ImageFitter(form)
        # (1, 256, channels), as `cv2.LUT` takes it.
        self._table = np.ascontiguousarray(int8_table(form, fix_point)[np.newaxis])

    def __call__(self, image: np.ndarray, target: np.ndarray) -> None:
        """Write an image into a runner's input.

        Parameters
        ----------
        image : uint8, (height, width, 3), BGR as OpenCV reads it
        target : int8, (model height, model width, channels), C order; overwritten
        """
        written = cv2.LUT(self._fit(image), self._table, target)
        # OpenCV allocates another array, silently, where the target's form does not suit it.
        if written is not target and not np.shares_memory(written, target):
            target[...] = written.reshape(target.shape)
