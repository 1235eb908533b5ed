"""The activations that a layer has at its end, by XIR's names: NONE, RELU, RELU6, LEAKYRELU.

RELU8 is ours: a ReLU6 whose channels are scaled so that int8's own limit clips it (see
host/quantise/ptq/equalise.py). On the DPU it is a RELU.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from tutelage.core.fixed_point import INT8_MAX, LEAKY_SLOPE, RELU6_FIX_POINT, relu6_highest

NON_NEGATIVE = ("RELU", "RELU6", "RELU8")

RELU8_LIMIT = INT8_MAX / 2**RELU6_FIX_POINT
"""The largest value of a RELU8: where int8 saturates at the fix point of a ReLU6."""


def apply_nonlinear(nonlinear: str, x: Tensor) -> Tensor:
    """Return an activation of x, of any shape."""
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
    """Return whether the exact result takes more bits than the sum: LEAKYRELU's 26/256 has 8."""
    return nonlinear == "LEAKYRELU"


def least_fix_point(nonlinear: str) -> int | None:
    """Return the lowest fix point at which the DPU's activation is PyTorch's, None for any.

    The DPU clips a ReLU6 at 96, whatever the fix point: below 4 that is not 6.
    """
    return RELU6_FIX_POINT if nonlinear in ("RELU6", "RELU8") else None


def on_dpu(nonlinear: str, fix_point: int) -> str:
    """Return the activation as a DPU has it, whose ReLU6 clips at 6 for one fix point only.

    Above that fix point int8 ends below 6; below it `highest` says where the value must be clipped.
    """
    if nonlinear == "RELU8" or (nonlinear == "RELU6" and fix_point != RELU6_FIX_POINT):
        return "RELU"
    return nonlinear


def highest(nonlinear: str, fix_point: int) -> int:
    """Return the largest integer that an activation leaves, where int8 has more."""
    if nonlinear == "RELU6" and fix_point < RELU6_FIX_POINT:
        return relu6_highest(fix_point)
    if nonlinear == "RELU8" and fix_point < RELU6_FIX_POINT:
        return math.floor(RELU8_LIMIT * 2.0**fix_point + 0.5)
    return INT8_MAX
