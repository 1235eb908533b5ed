"""What the DPUCZDX8G can do, as numbers and small formulas.

Sources: AMD's vai_q_pytorch and XIR (Apache-2.0) for the shifts, the reciprocals
and the LeakyReLU slope.
"""

from __future__ import annotations

import math

MAX_SHIFT = 16  # of an accumulator to the right, and of a bias to the left
LEAKY_SLOPE = 26 / 256
EXACT_FLOAT32 = 2**24  # integers up to here, and sums of them, are exact in float32

# The reciprocals AMD gives by name; all other windows follow `reciprocal`'s rule.
_NAMED_RECIPROCALS = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (3, 6): (7, 8),
    (6, 3): (7, 8),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}


def reciprocal(height: int, width: int) -> tuple[int, int]:
    """(m, n) with m / 2^n in the place of 1 / (height * width) in an average pool.

    n is the first of [0, ceil(log2(128 * area))) with the smallest error.
    """
    if (height, width) in _NAMED_RECIPROCALS:
        return _NAMED_RECIPROCALS[height, width]
    area = height * width
    candidates = [
        (math.floor(2**n / area + 0.5), n) for n in range(math.ceil(math.log2(128 * area)))
    ]
    return min(candidates, key=lambda mn: abs(mn[0] / 2 ** mn[1] - 1 / area))
