"""The activations that can end a layer, by their names in XIR: NONE, RELU, RELU6, LEAKYRELU.

RELU8 is this project's: a ReLU6 whose channels are scaled so that the limit of int8 clips it (see
host/quantise/ptq/equalise.py). On the DPU it is a RELU.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from tutelage.core.fixed_point import INT8_MAX, LEAKY_SLOPE, RELU6_FIX_POINT, relu6_highest

NON_NEGATIVE = ("RELU", "RELU6", "RELU8")

RELU8_LIMIT = INT8_MAX / 2**RELU6_FIX_POINT
"""The upper limit of a RELU8, the largest int8 at the fix point of a ReLU6."""


def apply_nonlinear(nonlinear: str, x: Tensor) -> Tensor:
    """Apply an activation, by its XIR name, to x of any shape; other names leave x unchanged."""
    if nonlinear == "RELU":
        return F.relu(x)
    if nonlinear == "RELU6":
        return F.hardtanh(x, 0.0, 6.0)
    if nonlinear == "RELU8":
        return F.hardtanh(x, 0.0, RELU8_LIMIT)
    if nonlinear == "LEAKYRELU":
        return F.leaky_relu(x, LEAKY_SLOPE)
    return x


def passes_float32(nonlinear: str) -> bool:
    """Return whether the exact result needs more bits than the sum: 8 for LEAKYRELU's 26/256."""
    return nonlinear == "LEAKYRELU"


def least_fix_point(nonlinear: str) -> int | None:
    """Return the lowest fix point at which the DPU's activation equals PyTorch's; None: any.

    The DPU clips a ReLU6 at the integer 96 for any fix point, which is 6 at fix point 4 only.
    """
    return RELU6_FIX_POINT if nonlinear in ("RELU6", "RELU8") else None


def on_dpu(nonlinear: str, fix_point: int) -> str:
    """Return the name of the DPU's activation; its ReLU6 clips at 6 for one fix point only.

    Above that fix point int8 ends below 6, and RELU is enough; below it the value must be clipped
    in addition, to `highest`.
    """
    if nonlinear == "RELU8" or (nonlinear == "RELU6" and fix_point != RELU6_FIX_POINT):
        return "RELU"
    return nonlinear


def highest(nonlinear: str, fix_point: int) -> int:
    """Return the largest integer that an activation can give, at most that of int8."""
    if nonlinear == "RELU6" and fix_point < RELU6_FIX_POINT:
        return relu6_highest(fix_point)
    if nonlinear == "RELU8" and fix_point < RELU6_FIX_POINT:
        return math.floor(RELU8_LIMIT * 2.0**fix_point + 0.5)
    return INT8_MAX
