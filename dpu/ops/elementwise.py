"""Elementwise nonlinear functions and scalings of a graph's CPU part.

They are computed in float64 and rounded to float32 once. PyTorch, which AMD's quantiser uses,
rounds each step to float32, so the last bit may differ before a `fix` removes it by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import unknown_op
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.attributes import attr
from tutelage.dpu.ops.int8 import through_float
from tutelage.dpu.ops.registry import OpType, Reference, register


class Bounded(OpType):
    """A function with a known range; its int8 form computes in float32."""

    bounded = left_to_cpu = True

    def __init__(self, name: str, real: Reference) -> None:
        super().__init__(name, real, through_float(real))


class Softmax(Bounded):
    """Softmax: ``exp(x) / sum(exp(x))`` along `axis`."""

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return _not_along_the_batch(op)


class Scale(OpType):
    """Scaling: ``x * scale + bias`` along `axis`."""

    def keeps_batch(self, op: Any, moving: Sequence[Any]) -> bool:
        return _not_along_the_batch(op)


class Clamp(OpType):
    """Clamp: ``min(max(x, min), max)``."""

    def shape(self, op: Any, dims: list[int]) -> list[int]:
        """Raise UnknownOpError if the limits are missing, before the op runs."""
        clamp_limits(op)
        return dims


def _not_along_the_batch(op: Any) -> bool:
    return bool(attr(op, "axis", -1) % op.get_output_tensor().ndim != 0)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))  # cannot overflow


def _erf(x: Array) -> Array:
    """Return the error function, once per distinct value, since a quantised map has few."""
    values, places = np.unique(x, return_inverse=True)
    return np.array([math.erf(value) for value in values])[places].reshape(x.shape)


def _swish(x: Array) -> Array:
    return x * _sigmoid(x)


def _mish(x: Array) -> Array:
    return np.asarray(x * np.tanh(np.logaddexp(0, x)))


def _unary(function: Callable[[Array], Array]) -> Reference:
    """Return the reference function of a unary function without parameters."""

    def computed(op: Any, inputs: Inputs) -> Array:
        with np.errstate(all="ignore"):  # values of a damaged file may overflow
            return np.asarray(function(_real(inputs)), np.float32)

    return computed


def _real(inputs: Inputs) -> Array:
    return inputs["input"][0].astype(np.float64)


def sigmoid(op: Any, inputs: Inputs) -> Array:
    """Return ``1 / (1 + exp(-x))``, computed so that it cannot overflow."""
    x = inputs["input"][0].astype(np.float64)
    return _sigmoid(x).astype(np.float32)


def tanh(op: Any, inputs: Inputs) -> Array:
    """Return the hyperbolic tangent."""
    return np.tanh(inputs["input"][0].astype(np.float64)).astype(np.float32)


def softmax(op: Any, inputs: Inputs) -> Array:
    """Return ``exp(x) / sum(exp(x))`` along `axis`."""
    x = inputs["input"][0].astype(np.float64)
    axis = attr(op, "axis", -1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    return (powers / powers.sum(axis, keepdims=True)).astype(np.float32)


def elu(op: Any, inputs: Inputs) -> Array:
    """Return ``x if x > 0 else alpha * (exp(x) - 1)``; alpha defaults to 1."""
    x, alpha = _real(inputs), float(op.get_attrs().get("alpha", 1.0))
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))).astype(np.float32)


def gelu(op: Any, inputs: Inputs) -> Array:
    """Return ``x * (1 + erf(x / sqrt(2))) / 2``, or its tanh form if `approximate` is "tanh"."""
    x = _real(inputs)
    if "tanh" in str(op.get_attrs().get("approximate", "none")):
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = _erf(x / math.sqrt(2))
    return np.asarray(0.5 * x * (1 + inner), np.float32)


def prelu(op: Any, inputs: Inputs) -> Array:
    """Return ``x if x > 0 else weight * x``, with one weight or one per channel (last axis)."""
    x = _real(inputs)
    return np.where(x > 0, x, x * inputs["weight"][0].reshape(-1))


def scale(op: Any, inputs: Inputs) -> Array:
    """Return ``x * scale + bias`` along `axis`: a norm not preceded by a convolution (XIR)."""
    x = _real(inputs)
    shape = [1] * x.ndim
    shape[int(op.get_attrs().get("axis", -1))] = -1
    out = x * inputs["scale"][0].reshape(shape)
    return out + inputs["bias"][0].reshape(shape) if inputs.get("bias") else out


def clamp_limits(op: Any) -> tuple[float, float]:
    """Return the limits of a clamp, from its attributes min and max.

    Raises
    ------
    UnknownOpError
        There are none, as in an nndct_clamp exported by vai_q_pytorch 3.5.
    """
    attrs = op.get_attrs()
    if "min" not in attrs and "max" not in attrs:
        raise unknown_op(op, "whose limits are not in the file")
    return float(attrs.get("min", -math.inf)), float(attrs.get("max", math.inf))


def clamp(op: Any, inputs: Inputs) -> Array:
    """Return ``min(max(x, min), max)``."""
    return np.clip(inputs["input"][0], *clamp_limits(op))


register(
    Bounded("sigmoid", sigmoid),
    Bounded("tanh", tanh),
    Softmax("softmax", softmax),
    Scale("scale", scale),
    Clamp("clamp", clamp),
    Clamp("nndct_clamp", clamp),
    OpType("elu", elu),
    OpType("aten::elu", elu),
    OpType("gelu", gelu),
    OpType("prelu", prelu),
    OpType("mish", _unary(_mish)),
    OpType("neg", _unary(np.negative)),
    OpType("swish", _unary(_swish)),
    OpType("aten::abs", _unary(np.abs)),
    OpType("aten::mish", _unary(_mish)),
    OpType("aten::silu", _unary(_swish)),
    OpType("aten::softplus", _unary(lambda x: np.logaddexp(0, x))),
    OpType("aten::sqrt", _unary(np.sqrt)),
)
