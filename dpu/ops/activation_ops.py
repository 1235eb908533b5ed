"""Nonlinear functions and scalings of a graph's CPU part, element by element, in numpy.

Each takes the op and the arrays of its inputs by argument name and returns the output. They are
computed in float64 and rounded to float32 once; PyTorch, in which AMD's quantiser computes,
rounds each of its float32 steps, so that the last bit may differ before a `fix` rounds it away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tutelage.core.errors import unknown_op
from tutelage.core.fixed_point import Array, Inputs


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))  # cannot overflow


def _erf(x: Array) -> Array:
    """The error function; a quantised map has few different values."""
    values, places = np.unique(x, return_inverse=True)
    return np.array([math.erf(value) for value in values])[places].reshape(x.shape)


def _swish(x: Array) -> Array:
    return x * _sigmoid(x)


def _mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(np.logaddexp(0, x)))


UNARY: dict[str, Callable[[Array], Array]] = {
    "mish": _mish,
    "neg": np.negative,
    "swish": _swish,
    "aten::abs": np.abs,
    "aten::mish": _mish,
    "aten::silu": _swish,
    "aten::softplus": lambda x: np.logaddexp(0, x),
    "aten::sqrt": np.sqrt,
}
"""Functions without parameters, by the op type."""


def unary(op: Any, inputs: Inputs) -> Array:
    """A function of one value, of `UNARY` by the op type."""
    with np.errstate(all="ignore"):  # of a damaged file, values may overflow
        return np.asarray(UNARY[op.get_type()](_real(inputs)), np.float32)


def _real(inputs: Inputs) -> Array:
    return inputs["input"][0].astype(np.float64)


def elu(op: Any, inputs: Inputs) -> Array:
    """``x if x > 0 else alpha * (exp(x) - 1)``; alpha is 1 where the file has none."""
    x, alpha = _real(inputs), float(op.get_attrs().get("alpha", 1.0))
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(np.float32)


def gelu(op: Any, inputs: Inputs) -> Array:
    """``x * (1 + erf(x / sqrt(2))) / 2``, or with the attribute approximate tanh its formula."""
    x = _real(inputs)
    if "tanh" in str(op.get_attrs().get("approximate", "none")):
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = _erf(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + inner), np.float32)


def prelu(op: Any, inputs: Inputs) -> Array:
    """``x if x > 0 else weight * x``, one weight or one per channel (the last axis)."""
    x = _real(inputs)
    return np.where(x > 0, x, x * inputs["weight"][0].reshape(-1))


def scale(op: Any, inputs: Inputs) -> Array:
    """``x * scale + bias`` along `axis`: a norm that no convolution precedes (XIR)."""
    x = _real(inputs)
    shape = [1] * x.ndim
    shape[int(op.get_attrs().get("axis", -1))] = -1
    out = x * inputs["scale"][0].reshape(shape)
    return out + inputs["bias"][0].reshape(shape) if inputs.get("bias") else out


def clamp_limits(op: Any) -> tuple[float, float]:
    """The limits of a clamp, from its attributes min and max.

    Raises
    ------
    UnknownOpError
        There are none: vai_q_pytorch 3.5 exports nndct_clamp without them.
    """
    attrs = op.get_attrs()
    if "min" not in attrs and "max" not in attrs:
        raise unknown_op(op, "whose limits the file does not have")
    return float(attrs.get("min", -math.inf)), float(attrs.get("max", math.inf))


def clamp(op: Any, inputs: Inputs) -> Array:
    """``min(max(x, min), max)``."""
    return np.clip(inputs["input"][0], *clamp_limits(op))


OPS: dict[str, Callable[[Any, Inputs], Array]] = {
    **dict.fromkeys(UNARY, unary),
    "clamp": clamp,
    "elu": elu,
    "gelu": gelu,
    "prelu": prelu,
    "scale": scale,
    "aten::elu": elu,
    "nndct_clamp": clamp,
}
"""The op types of this file and their functions."""
