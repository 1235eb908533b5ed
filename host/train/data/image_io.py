"""Reading and writing of single images of a data set."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tutelage.core.images.decoder import read_image
from tutelage.host.train.data.stored_images import PictureError


def read_bgr(path: Path) -> NDArray[np.uint8]:
    """Read an image file, BGR (H, W, 3), upright.

    Raises
    ------
    PictureError
        The file cannot be read, is too large (`tutelage.core.images.decoder`), truncated or not an
        image.
    """
    try:
        return np.asarray(read_image(path), np.uint8)
    except ValueError as error:
        raise PictureError(f"{path}: {error}") from error


def encode_png(image: Tensor) -> bytes:
    """Return one uint8 image (C, H, W), grey or RGB, as the bytes of a PNG file."""
    pixels = image.permute(1, 2, 0).numpy()[..., ::-1]  # OpenCV's colours are BGR
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()
