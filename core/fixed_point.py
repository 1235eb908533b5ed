"""The DPU's number rules: rounding, shifts, saturation, exactness, average-pool reciprocals.

A fixed-point tensor holds int8 values q with a fix point p; q means q * 2**-p.
Sources: XIR and vai_q_pytorch (Apache-2.0), checked against models that AMD's
compiler made for the ZCU104.

The rules, each in one function: real values to int8 (`quantise_int8`) and back (`dequantise`), to
other widths and rounding modes (`quantise`), values that are on a grid already (`integers_of`),
accumulators to int8 (`shift_round`, `saturate`). The same rule is written in two other languages:
`tutelage.host.quantise.fake.quantise` for torch and `finish` in
`tutelage.dpu.ops.lowering` for ONNX; the tests compare them with these.
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
INT8_BOUND = 128
"""Largest magnitude of an int8."""

EXACT_FLOAT32 = 1 << 24
"""Integers below this, and sums of them, are exact in float32 (24 bits of significand)."""

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


def round_half_up(values: Array, out: Array | None = None) -> Array:
    """DPU_ROUND: ``floor(x + 0.5)`` in the values' own float type.

    Parameters
    ----------
    out : array for the result, which may be `values`
    """
    return np.floor(np.add(values, 0.5, out=out), out=out)


def round_half_away(values: Array) -> Array:
    """STD_ROUND: halves away from zero, C's ``round``."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


ROUND_MODES: dict[str, Callable[[Array], Array]] = {
    "DPU_ROUND": round_half_up,
    "PY3_ROUND": np.rint,
    "STD_ROUND": round_half_away,
}
"""By the name in the file. PY3_ROUND is half to even, as Python 3's round."""


def scaled(values: Array, fix_point: int) -> Array:
    """``x * 2**fix_point``, a new array: exact within the range of its type.

    Parameters
    ----------
    values : of any float type, which stays; integers become float64
    """
    return np.asarray(values * 2.0**fix_point)


def quantise_int8(values: Array, fix_point: int) -> Array:
    """Real values to int8 as the DPU rounds: ``clip(floor(x * 2**fix_point + 1/2), -128, 127)``.

    Computed in the values' own float type: in float32, as the quantised student does. NaN, which
    has no integer, becomes 0; the DPU never sees one, the CPU part of a graph may.
    """
    q = scaled(values, fix_point)
    round_half_up(q, out=q)
    q.clip(INT8_MIN, INT8_MAX, out=q)
    if math.isnan(np.minimum.reduce(q, axis=None, initial=0)):  # quicker than a mask each time
        q[np.isnan(q)] = 0
    return q.astype(np.int8)


def dequantise(q: Array, fix_point: int) -> Array:
    """Integers as float32: ``q * 2**-fix_point``, exact for int8."""
    return np.asarray(np.multiply(q, np.float32(2.0**-fix_point), dtype=np.float32))


def integers_of(values: Array, fix_point: int) -> Array:
    """The integers q of real values that are ``q * 2**-fix_point``, in the values' float type.

    NaN becomes 0, infinity the largest value of the type.
    """
    q = scaled(values, fix_point)
    return np.nan_to_num(np.rint(q, out=q), copy=False)


def integer_range(bit_width: int, signed: bool) -> tuple[int, int]:
    """Least and greatest integer of so many bits."""
    return (-(1 << (bit_width - 1)) if signed else 0), (1 << (bit_width - signed)) - 1


def quantise(values: Array, fix_point: int, round_mode: str, bit_width: int, signed: bool) -> Array:
    """Real values to integers: ``clip(round(x * 2**fix_point))``, as float64.

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
"""Where a DPU's convolution clips for RELU6, whatever the fix point of its output: 6 at fix point
4. Source: the DPU's own instruction (AMD's simulator, vart sim-runner)."""

RELU6_FIX_POINT = 4
"""The fix point at which the DPU's RELU6 clips at 6."""


def relu6_highest(fix_point: int) -> int:
    """6 as an integer of the fix point, rounded half up; it may be above 127."""
    return int(round_half_up(np.asarray(6 * 2.0**fix_point)))


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


def average_bound(kernel_width: int, kernel_height: int, input_bound: int = INT8_BOUND) -> int:
    """Largest magnitude of an average pool's sum times the numerator of its reciprocal.

    Parameters
    ----------
    input_bound : largest magnitude of an input value
    """
    numerator, _ = pool_reciprocal(kernel_width, kernel_height)
    return kernel_width * kernel_height * numerator * input_bound


def accumulator_bound(weights: Any, bias: Any, input_bound: float = INT8_BOUND) -> float:
    """Largest ``sum |w| * input_bound + |bias|`` over the output channels of a convolution.

    Parameters
    ----------
    weights : numpy array or torch tensor, output channel first; int64 or float, for int8 has no 128
    bias : of the same kind, one value per output channel, in steps of the sum; None without one
    input_bound : largest magnitude of an input value
    """
    sums = abs(weights).reshape(len(weights), -1).sum(1) * input_bound
    return (sums if bias is None else sums + abs(bias)).max().item()
