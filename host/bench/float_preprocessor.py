"""Preprocessing of an image in memory to the network's float32 input.

The steps are those of the application before its int8 input (crop, resize, colour order, mean and
scale), so that times of platforms and of the DPU include the same work.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.input_form import InputForm, float_table
from tutelage.host.bench.platform import Floats
from tutelage.host.bench.subject_files import Image


class FloatPreprocessor:
    """Converter of images to the network's input, for one thread.

    Parameters
    ----------
    form : of the network's input
    channels_last : inputs are (N, H, W, C), else (N, C, H, W)
    """

    def __init__(self, form: InputForm, channels_last: bool) -> None:
        self._form, self._channels_last = form, channels_last
        self._fit = ImageFitter(form)
        self._table = np.ascontiguousarray(float_table(form)[np.newaxis])  # the shape for cv2.LUT
        self._buffers: dict[int, Floats] = {}

    def __call__(self, images: Sequence[Image]) -> Floats:
        """Return the input, float32, for uint8 images (H, W, 3), BGR, of any size.

        It is valid until the next call.
        """
        count = len(images)
        if count not in self._buffers:
            self._buffers[count] = self.empty(count)
        self.fill(images, self._buffers[count])
        return self._buffers[count]

    def empty(self, count: int) -> Floats:
        """Return memory for the input of `count` images."""
        form, channels = self._form, len(self._form.mean)
        if self._channels_last:
            return np.empty((count, form.height, form.width, channels), np.float32)
        return np.empty((count, channels, form.height, form.width), np.float32)

    def fill(self, images: Sequence[Image], batch: Floats) -> None:
        """Write the input for images, as in a call, to `batch`, which is as that of `empty`."""
        targets = batch if self._channels_last else batch.transpose(0, 2, 3, 1)
        for image, target in zip(images, targets, strict=True):
            target[...] = cv2.LUT(self._fit(image), self._table).reshape(target.shape)
