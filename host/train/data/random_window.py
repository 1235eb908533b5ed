"""A random part of a picture, as random resized crops take it."""

from __future__ import annotations

import math

import numpy as np

_LOG_ASPECTS = math.log(3 / 4), math.log(4 / 3)  # of the part, in terms of the image's own
_TRIES = 10


def random_window(
    seed: int, least: float, aspect: float, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return a random part of a picture: top, left, height, width.

    Its area is evenly distributed from `least` to all of the picture's, its aspect ratio
    logarithmically from 3/4 to 4/3 of the image's (Szegedy et al., arXiv:1409.4842, section 6).
    Where ten draws do not fit into the picture, it is the largest middle part of the image's shape.

    Parameters
    ----------
    seed : of the random numbers; the same gives the same part of the same picture
    least : share of the picture's area, 0 to 1
    aspect : width of the image that the part becomes, divided by its height
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
