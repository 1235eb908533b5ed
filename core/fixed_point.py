"""The DPU's arithmetic: rounding, shifts, saturation, exactness, average-pool reciprocals.

A fixed-point tensor holds int8 values q with a fix point p; q represents q * 2**-p.
Sources: XIR and vai_q_pytorch (Apache-2.0), checked against models that AMD's
compiler made for the ZCU104.

Each rule is one function: real values to int8 (`quantise_int8`) and back (`dequantise`), to
other widths and rounding modes (`quantise`), values that are already on a grid (`integers_of`),
accumulators to int8 (`shift_round`, `saturate`). The rules are implemented twice more:
`tutelage.host.quantise.fake.quantise` for torch and `finish` in
`tutelage.dpu.ops.lowering` for ONNX; the tests compare all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from tutelage.core.errors import UnsupportedError

# Quoted, because ndarray of the board's numpy 1.21 is not subscriptable at run time.
Array: TypeAlias = "np.ndarray[Any, Any]"

Inputs: TypeAlias = "dict[str, list[Array]]"
"""The arrays that an op reads, by argument name."""

INT8_MIN, INT8_MAX = -128, 127
INT8_BOUND = 128
"""Largest magnitude of an int8."""

EXACT_FLOAT32 = 1 << 24
"""Integers below this, and sums of them, are exact in float32 (24 bits of significand)."""

FARTHEST_FIX_POINT = 64
"""Fix points of larger magnitude are refused."""

LEAKY_NUMERATOR, LEAKY_SHIFT = 26, 8
"""Leaky ReLU multiplies negative values by 26/256 (vai_q_pytorch, LeakyReLU)."""

LEAKY_SLOPE = LEAKY_NUMERATOR / 2**LEAKY_SHIFT
_LEAKY_TOLERANCE = 0.5 / 2**LEAKY_SHIFT
"""Slopes within this distance of the DPU's slope are rounded to it."""


def is_leaky_slope(slope: float) -> bool:
    """Return whether a leaky ReLU's slope rounds to the DPU's slope (0.1 does)."""
    return abs(slope - LEAKY_SLOPE) <= _LEAKY_TOLERANCE


SIXTH_NUMERATOR, SIXTH_SHIFT = 2731, 14
"""Hard sigmoid multiplies by 2731/2**14, nearly 1/6 (vai_q_pytorch, Hardsigmoid)."""

MAX_SHIFT = 16
"""Largest output shift and largest bias shift of a DPU convolution."""


ACCUMULATOR_BITS = 24
"""Bits available to a bias at the output's scale (vai_q_pytorch, shift limits)."""


def least_bias_shift(output_shift: int) -> int:
    """Return the most negative bias shift that the DPU supports with an output shift.

    ``min(0, -(24 - (8 + s)))`` (vai_q_pytorch, adjustment of fix points).
    """
    return min(0, -(ACCUMULATOR_BITS - (8 + output_shift)))


def shift_round(acc: Array, shift: int) -> Array:
    """Return ``floor(acc / 2**shift + 1/2)`` of integers; a negative shift multiplies.

    Parameters
    ----------
    acc : int64 array, below 2**39 in magnitude
    shift : bits to drop; halves round towards +infinity (DPU_ROUND). Shifts below -24 count as
        -24, which already moves every value but 0 out of the range of int8
    """
    if shift <= 0:
        return acc << min(-shift, _MOST_LEFT)
    if shift > _MOST_RIGHT:
        return np.zeros_like(acc)
    return (acc + (1 << (shift - 1))) >> shift


_MOST_LEFT, _MOST_RIGHT = 24, 61


def saturate(values: Array, low: int = INT8_MIN, high: int = INT8_MAX) -> Array:
    """Clip values to [low, high] and convert them to int8."""
    return np.clip(values, low, high).astype(np.int8)


def round_half_up(values: Array, out: Array | None = None) -> Array:
    """Round as DPU_ROUND does: ``floor(x + 0.5)``, in the float type of `values`.

    Parameters
    ----------
    out : array for the result, which may be `values`
    """
    return np.floor(np.add(values, 0.5, out=out), out=out)


def round_half_away(values: Array) -> Array:
    """Round as STD_ROUND does: halves away from zero, as C's ``round``."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


ROUND_MODES: dict[str, Callable[[Array], Array]] = {
    "DPU_ROUND": round_half_up,
    "PY3_ROUND": np.rint,
    "STD_ROUND": round_half_away,
}
"""Rounding functions by their name in the file. PY3_ROUND is half to even, as Python's round."""


def scaled(values: Array, fix_point: int) -> Array:
    """Return ``x * 2**fix_point`` as a new array; exact within the range of its type.

    Parameters
    ----------
    values : of any float type, which is kept; integers become float64
    """
    return np.asarray(values * 2.0**fix_point)


def quantise_int8(values: Array, fix_point: int) -> Array:
    """Quantise real values as the DPU does: ``clip(floor(x * 2**fix_point + 1/2), -128, 127)``.

    Computed in the float type of `values`, as in float32 by the quantised student. NaN becomes 0:
    the DPU never receives one, but the CPU part of a graph may.
    """
    q = scaled(values, fix_point)
    round_half_up(q, out=q)
    q.clip(INT8_MIN, INT8_MAX, out=q)
    if math.isnan(np.minimum.reduce(q, axis=None, initial=0)):  # faster than a mask each time
        q[np.isnan(q)] = 0
    return q.astype(np.int8)


def dequantise(q: Array, fix_point: int) -> Array:
    """Return integers as float32: ``q * 2**-fix_point``, exact for int8."""
    return np.asarray(np.multiply(q, np.float32(2.0**-fix_point), dtype=np.float32))


def integers_of(values: Array, fix_point: int) -> Array:
    """Return the integers q of values ``q * 2**-fix_point``, in the values' float type.

    NaN becomes 0, infinity the largest value of the type.
    """
    q = scaled(values, fix_point)
    return np.nan_to_num(np.rint(q, out=q), copy=False)


def integer_range(bit_width: int, signed: bool) -> tuple[int, int]:
    """Return the least and greatest integer of `bit_width` bits."""
    return (-(1 << (bit_width - 1)) if signed else 0), (1 << (bit_width - signed)) - 1


def quantise(values: Array, fix_point: int, round_mode: str, bit_width: int, signed: bool) -> Array:
    """Return real values as integers in float64: ``clip(round(x * 2**fix_point))``.

    Raises
    ------
    UnsupportedError
        The rounding mode is none of `ROUND_MODES`.
    """
    if round_mode not in ROUND_MODES:
        raise UnsupportedError(f"round_mode {round_mode!r} is not one of {', '.join(ROUND_MODES)}")
    real = np.nan_to_num(scaled(np.asarray(values, np.float64), fix_point), copy=False)
    return np.clip(ROUND_MODES[round_mode](real), *integer_range(bit_width, signed))


RELU6_HIGHEST = 96
"""Upper bound that a DPU's convolution clips RELU6 to, whatever the fix point of its output: 6 at
fix point 4. Source: the DPU's own instruction (AMD's simulator, vart sim-runner)."""

RELU6_FIX_POINT = 4
"""The fix point at which the DPU's RELU6 clips at 6."""


def relu6_highest(fix_point: int) -> int:
    """Return 6 as an integer at the fix point, rounded half up; it may exceed 127."""
    return int(round_half_up(np.asarray(6 * 2.0**fix_point)))


GUARD_BITS = 2
"""Bits below those of the coarsest input that the DPU keeps in a sum (AMD's simulator)."""

MAX_ALIGNMENT = 15
"""Largest shift that aligns an input of a DPU sum, and largest shift after the sum."""


def sum_is_exact(points: Sequence[int], out_fix_point: int) -> bool:
    """Return whether the DPU's sum of inputs at these fix points equals a sum rounded once.

    The DPU floors each input to `GUARD_BITS` below the coarsest one. The result differs if two
    inputs lose bits, or if one does and the output keeps the guard bits.
    """
    coarsest = min(points)
    losing = sum(point > coarsest + GUARD_BITS for point in points)
    return losing == 0 or (losing == 1 and out_fix_point < coarsest + GUARD_BITS)


_POOL_RECIPROCALS = {
    (3, 3): (7, 6),
    (5, 5): (10, 8),
    (6, 6): (7, 8),
    (3, 6): (14, 8),
    (6, 3): (14, 8),
    (7, 7): (21, 10),
    (14, 14): (21, 12),
}


@cache
def pool_reciprocal(kernel_width: int, kernel_height: int) -> tuple[int, int]:
    """Return numerator m and shift n of an average pool's factor ``m / 2**n``, about 1/area.

    Some window sizes have special values (AMD's factor for 3x6 is
    36 * 7/256 of the mean of 18 values, 14/256 of their sum); for the others
    ``m = round(2**n / area)`` with the first n in [0, ceil(log2(128 * area))) that
        minimises the error ``|m / 2**n - 1 / area|``
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


def average_bound(kernel_width: int, kernel_height: int, input_bound: int = INT8_BOUND) -> int:
    """Return the largest magnitude of an average pool's sum times its reciprocal's numerator.

    Parameters
    ----------
    input_bound : largest magnitude of an input value
    """
    numerator, _ = pool_reciprocal(kernel_width, kernel_height)
    return kernel_width * kernel_height * numerator * input_bound


def accumulator_bound(weights: Any, bias: Any, input_bound: float = INT8_BOUND) -> float:
    """Return the largest ``sum |w| * input_bound + |bias|`` of a convolution's output channels.

    Parameters
    ----------
    weights : numpy array or torch tensor, output channel first; int64 or float, since 128 exceeds
        int8
    bias : of the same kind, one value per output channel, in units of the sum; None if absent
    input_bound : largest magnitude of an input value
    """
    sums = abs(weights).reshape(len(weights), -1).sum(1) * input_bound
    return (sums if bias is None else sums + abs(bias)).max().item()
