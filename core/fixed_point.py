"""The DPU's number rules: rounding, shifts, saturation, average-pool reciprocals.

A fixed-point tensor holds int8 values q with a fix point p; q means q * 2**-p.
Sources: XIR and vai_q_pytorch (Apache-2.0), checked against models that AMD's
compiler made for the ZCU104.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from tutelage.core.errors import UnsupportedError

# In quotes: the board's numpy 1.21 has an ndarray that takes no type arguments at run time.
Array: TypeAlias = "np.ndarray[Any, Any]"

Inputs: TypeAlias = "dict[str, list[Array]]"
"""The arrays that an op reads, by argument name."""

INT8_MIN, INT8_MAX = -128, 127

FARTHEST_FIX_POINT = 64
"""Fix points beyond this, up or down, are refused."""

LEAKY_NUMERATOR, LEAKY_SHIFT = 26, 8
"""Leaky ReLU multiplies negative values by 26/256 (vai_q_pytorch, LeakyReLU)."""

LEAKY_SLOPE = LEAKY_NUMERATOR / 2**LEAKY_SHIFT
_LEAKY_TOLERANCE = 0.5 / 2**LEAKY_SHIFT
"""Slopes nearer than this to the DPU's round to it."""


def is_leaky_slope(slope: float) -> bool:
    """Whether a leaky ReLU's slope counts as the one that the DPU has (0.1 does)."""
    return abs(slope - LEAKY_SLOPE) <= _LEAKY_TOLERANCE


SIXTH_NUMERATOR, SIXTH_SHIFT = 2731, 14
"""Hard sigmoid multiplies by 2731/2**14, nearly 1/6 (vai_q_pytorch, Hardsigmoid)."""

MAX_SHIFT = 16
"""Largest output shift and largest bias shift of a DPU convolution."""


ACCUMULATOR_BITS = 24
"""Bits that a bias, moved to the output's scale, may take (vai_q_pytorch, shift limits)."""


def least_bias_shift(output_shift: int) -> int:
    """The most negative bias shift that the DPU has, for an output shift.

    ``min(0, -(24 - (8 + s)))`` (vai_q_pytorch's adjustment of fix points).
    """
    return min(0, -(ACCUMULATOR_BITS - (8 + output_shift)))


def shift_round(acc: Array, shift: int) -> Array:
    """``floor(acc / 2**shift + 1/2)`` on integers; a negative shift multiplies.

    Parameters
    ----------
    acc : int64 array, below 2**39 in magnitude
    shift : bits to drop; halves round towards +infinity (DPU_ROUND). Below -24 as -24, which takes
        every value but 0 out of int8
    """
    if shift <= 0:
        return acc << min(-shift, _MOST_LEFT)
    if shift > _MOST_RIGHT:
        return np.zeros_like(acc)
    return (acc + (1 << (shift - 1))) >> shift


_MOST_LEFT, _MOST_RIGHT = 24, 61


def saturate(values: Array, low: int = INT8_MIN, high: int = INT8_MAX) -> Array:
    """Clip to [low, high] and store as int8."""
    return np.clip(values, low, high).astype(np.int8)


def round_half_up(values: Array) -> Array:
    """DPU_ROUND: ``floor(x + 0.5)``."""
    return np.floor(values + 0.5)


def round_half_away(values: Array) -> Array:
    """STD_ROUND: halves away from zero, C's ``round``."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


ROUND_MODES: dict[str, Callable[[Array], Array]] = {
    "DPU_ROUND": round_half_up,
    "PY3_ROUND": np.rint,
    "STD_ROUND": round_half_away,
}
"""By the name that stands in the file. PY3_ROUND is half to even, as Python 3's round."""


def quantise(values: Array, fix_point: int, round_mode: str, bit_width: int, signed: bool) -> Array:
    """Real values to integers: ``clip(round(x * 2**fix_point))``, as float64.

    Raises
    ------
    UnsupportedError
        The rounding mode is none of `ROUND_MODES`.
    """
    if round_mode not in ROUND_MODES:
        raise UnsupportedError(f"round_mode {round_mode!r} is not one of {', '.join(ROUND_MODES)}")
    low = -(1 << (bit_width - 1)) if signed else 0
    high = (1 << (bit_width - signed)) - 1
    scaled = np.asarray(values, np.float64) * 2.0**fix_point
    # NaN has no integer; the DPU never sees one, the CPU part of a graph may.
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=high, neginf=low)
    return np.clip(ROUND_MODES[round_mode](scaled), low, high)


_POOL_RECIPROCALS = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (3, 6): (14, 8),
    (6, 3): (14, 8),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}


RELU6_HIGHEST = 96
"""Where a DPU's convolution clips for RELU6, whatever the fix point of its output: 6 at fix point
4. Source: the DPU's own instruction (AMD's simulator, vart sim-runner)."""

RELU6_FIX_POINT = 4
"""The fix point at which the DPU's RELU6 clips at 6."""


def relu6_highest(fix_point: int) -> int:
    """6 as an integer of the fix point, rounded half up; it may be above 127."""
    return math.floor(6 * 2.0**fix_point + 0.5)


GUARD_BITS = 2
"""Bits below the coarsest input's that a DPU's sum keeps of each input (AMD's simulator)."""

MAX_ALIGNMENT = 15
"""Largest shift that aligns an input of a DPU's sum, and that follows the sum."""


def sum_is_exact(points: Sequence[int], out_fix_point: int) -> bool:
    """Whether the DPU's sum of inputs of these fix points equals a sum that is rounded once.

    The DPU floors each input to `GUARD_BITS` below the coarsest one. The result differs where two
    inputs lose bits, or one does and the output keeps the guard bits.
    """
    coarsest = min(points)
    losing = sum(point > coarsest + GUARD_BITS for point in points)
    return losing == 0 or (losing == 1 and out_fix_point < coarsest + GUARD_BITS)


@cache
def pool_reciprocal(kernel_width: int, kernel_height: int) -> tuple[int, int]:
    """Numerator m and shift n of the average pool's factor ``m / 2**n``, nearly 1/area.

    Some window sizes have their own numbers (AMD's factor for 3x6 is
    36 * 7/256 of the mean of 18 values, 14/256 of their sum); for the others
    ``m = round(2**n / area)`` with the n in [0, ceil(log2(128 * area))) whose
    error ``|m / 2**n - 1 / area|`` is smallest, the first such n
    (vai_q_pytorch, DPUAvgPool).
    """
    if (kernel_width, kernel_height) in _POOL_RECIPROCALS:
        return _POOL_RECIPROCALS[kernel_width, kernel_height]
    area = kernel_width * kernel_height
    best, best_error = (1, 0), math.inf
    for shift in range(math.ceil(math.log2(128 * area))):
        numerator = round((1 << shift) / area)
        error = abs(numerator / (1 << shift) - 1 / area)
        if error < best_error:
            best, best_error = (numerator, shift), error
    return best
