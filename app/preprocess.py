"""From a camera's image to the DPU's int8 input: crop, resize, colour order, one table look-up.

A pixel has 256 possible values, so mean, scale and quantisation together are a table of 256
int8 values per channel. `cv2.LUT` writes through it straight into the runner's own buffer:
no float image is made and nothing is copied after that.
"""

from __future__ import annotations

import cv2
import numpy as np

from dpu.image_fitter import ImageFitter
from dpu.input_form import InputForm


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
        self._fit = ImageFitter(form)
        self._table = quantisation_table(form, fix_point)

    def __call__(self, image: np.ndarray, target: np.ndarray) -> None:
        """Write an image into a runner's input.

        Parameters
        ----------
        image : uint8, (height, width, 3), BGR as OpenCV reads it
        target : int8, (model height, model width, channels), C order; overwritten
        """
        written = cv2.LUT(self._fit(image), self._table, target)
        # OpenCV allocates anew, silently, where the target's form does not suit it.
        if written is not target and not np.shares_memory(written, target):
            target[...] = written.reshape(target.shape)
