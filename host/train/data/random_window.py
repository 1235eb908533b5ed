"""Random part of a picture for a random resized crop."""

from __future__ import annotations

import math

import numpy as np

_LOG_ASPECTS = math.log(3 / 4), math.log(4 / 3)  # of the part, relative to the image's
_TRIES = 10


def random_window(
    seed: int, least: float, aspect: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return a random part of a picture: top, left, height, width, in pixels.

    Its area is uniform from `least` to 1 of the picture's, its aspect ratio log-uniform from 3/4 to
    4/3 of the image's (Szegedy et al., arXiv:1409.4842, section 6). If none of ten draws fits into
    the picture, the result is the largest centre crop of the image's aspect ratio.

    Parameters
    ----------
    seed : of the random numbers; the same seed gives the same part of the same picture
    least : smallest share of the picture's area, 0 to 1
    aspect : width of the resulting image, divided by its height
    height, width : of the picture, in pixels
    """
    numbers = np.random.default_rng(seed)
    areas = height * width * numbers.uniform(least, 1, _TRIES)
    aspects = aspect * np.exp(numbers.uniform(*_LOG_ASPECTS, _TRIES))
    rows = np.rint(np.sqrt(areas / aspects)).astype(int)
    columns = np.rint(np.sqrt(areas * aspects)).astype(int)
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    if not fits.any():
        columns_left = max(1, min(width, round(height * aspect)))
        rows_left = max(1, min(height, round(width / aspect)))
        return (height - rows_left) // 2, (width - columns_left) // 2, rows_left, columns_left
    first = int(fits.argmax())
    down, across = int(rows[first]), int(columns[first])
    top, left = numbers.integers(0, (height - down + 1, width - across + 1)).tolist()
    return top, left, down, across
