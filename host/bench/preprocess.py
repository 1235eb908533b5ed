"""From an image in memory to the network's float32 input, by the stages of the application.

Crop, resize, colour order, mean and scale; what the DPU's application does before its int8 input,
so that platforms and DPU are timed over the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from host.bench.platform import Floats
from host.bench.subject_files import Image, InputForm

_CODES = {"grey": cv2.COLOR_BGR2GRAY, "rgb": cv2.COLOR_BGR2RGB}


class Preprocessor:
    """Owns its buffers: what it returns holds until its next call.

    Parameters
    ----------
    form : of the network
    channels_last : return (N, H, W, C), else (N, C, H, W)
    """

    def __init__(self, form: InputForm, channels_last: bool) -> None:
        self._form, self._channels_last = form, channels_last
        values = np.arange(256, dtype=np.float64)[:, np.newaxis]
        table = (values - np.array(form.mean)) * np.array(form.scale)
        self._table = np.ascontiguousarray(table[np.newaxis], np.float32)  # as cv2.LUT takes it
        self._buffers: dict[int, Floats] = {}

    def __call__(self, images: Sequence[Image]) -> Floats:
        """The input for uint8 images (H, W, 3), BGR, of any size."""
        form, count = self._form, len(images)
        if count not in self._buffers:
            shape = (count, form.height, form.width, len(form.mean))
            self._buffers[count] = np.empty(shape, np.float32)
        batch = self._buffers[count]
        for image, target in zip(images, batch, strict=True):
            target[...] = cv2.LUT(self._fitted(image), self._table).reshape(target.shape)
        if self._channels_last:
            return batch
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2))

    def _fitted(self, image: Image) -> Image:
        """In the network's size and colours."""
        form = self._form
        if form.crop == "center":
            image = _center(image, form.width, form.height)
        # Averaging pairs of pixels is several times as fast as averaging parts of pixels.
        while image.shape[0] >= 2 * form.height and image.shape[1] >= 2 * form.width:
            height, width = image.shape[0] // 2, image.shape[1] // 2
            image = _resized(image[: 2 * height, : 2 * width], width, height)
        if image.shape[:2] != (form.height, form.width):
            image = _resized(image, form.width, form.height)
        code = _CODES.get(form.colour)
        return image if code is None else np.asarray(cv2.cvtColor(image, code), np.uint8)


def _resized(image: Image, width: int, height: int) -> Image:
    shrinks = image.shape[1] > width or image.shape[0] > height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _center(image: Image, width: int, height: int) -> Image:
    """The largest middle part with the aspect of width x height, a view."""
    rows, columns = image.shape[:2]
    part_columns = max(1, min(columns, round(rows * width / height)))
    part_rows = max(1, min(rows, round(columns * height / width)))
    top, left = (rows - part_rows) // 2, (columns - part_columns) // 2
    return image[top : top + part_rows, left : left + part_columns]
