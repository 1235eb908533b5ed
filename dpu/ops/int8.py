"""Parts shared by the DPU's ops in integer numpy: fix points, final rounding, requantisation.

The reference functions of int8 forms take the op (its attributes and the fix points of its tensors)
and the int8 arrays of its inputs by argument name, with any batch size, and return the int8 output.
Their docstrings give the sources; "XIR" means the op definitions that AMD's compiler writes into
every file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import UnsupportedError
from tutelage.core.fixed_point import (
    FARTHEST_FIX_POINT,
    INT8_MAX,
    INT8_MIN,
    LEAKY_NUMERATOR,
    LEAKY_SHIFT,
    RELU6_HIGHEST,
    SIXTH_NUMERATOR,
    SIXTH_SHIFT,
    Array,
    Inputs,
    dequantise,
    quantise_int8,
    saturate,
    shift_round,
)

if TYPE_CHECKING:
    from tutelage.dpu.ops.registry import Reference


def fix_point(op: Any) -> int:
    """Return the fix point of an op's output tensor."""
    return _fix_point_of(op.get_output_tensor())


def input_fix_point(op: Any, arg: str = "input", index: int = 0) -> int:
    """Return the fix point of one of an op's input tensors."""
    return _fix_point_of(op.get_input_tensor(arg, index))


def _fix_point_of(tensor: Any) -> int:
    point = int(tensor.get_attr("fix_point"))
    if abs(point) > FARTHEST_FIX_POINT:
        raise UnsupportedError(f"tensor {tensor.name!r}: fix point {point} is out of range")
    return point


def activate(acc: Array, op: Any, acc_fix_point: int) -> Array:
    """Apply the final steps of an op: nonlinearity, shift, rounding and saturation to int8.

    ``q = clip(floor(acc / 2**s + 1/2))`` with ``s = acc_fix_point - fix_point``
    (measured on AMD's models). RELU clips at 0, RELU6 at 0 and `RELU6_HIGHEST`,
    LEAKYRELU multiplies negative accumulators by 26/256 before the shift.
    HSIGMOID and HSWISH are `hard_activation` of the result rounded to the fix point
    `hsigmoid_in` (XIR attributes).
    """
    kind = nonlinear(op)
    out = fix_point(op)
    if kind in ("HSIGMOID", "HSWISH"):
        between = int(op.get_attr("hsigmoid_in"))
        q = saturate(shift_round(acc, acc_fix_point - between)).astype(np.int64)
        return hard_activation(q, between, kind == "HSWISH", out)
    shift = acc_fix_point - out
    if kind == "LEAKYRELU":
        acc, shift = leaky(acc, shift)
    return saturate(shift_round(acc, shift), *clip_limits(kind))


def leaky(acc: Array, shift: int) -> tuple[Array, int]:
    """Return the accumulator with negative values times 26/256, and the shift to the result."""
    return np.where(acc < 0, acc * LEAKY_NUMERATOR, acc << LEAKY_SHIFT), shift + LEAKY_SHIFT


def nonlinear(op: Any) -> str:
    """Return the op's attribute `nonlinear`, "NONE" if it has none."""
    kind = op.get_attr("nonlinear") if op.has_attr("nonlinear") else "NONE"
    kind = kind or "NONE"
    if kind not in ("NONE", "RELU", "RELU6", "LEAKYRELU", "HSIGMOID", "HSWISH"):
        raise UnsupportedError(f"op {op.get_name()!r}: nonlinear {kind!r} is not implemented")
    return str(kind)


def only_clips(op: Any) -> bool:
    """Return whether the op's nonlinearity, if any, only clips values."""
    return nonlinear(op) in ("NONE", "RELU", "RELU6")


def clip_limits(kind: str) -> tuple[int, int]:
    """Return the least and greatest int8 value after a nonlinearity of the DPU."""
    low = 0 if kind in ("RELU", "RELU6") else INT8_MIN
    return low, RELU6_HIGHEST if kind == "RELU6" else INT8_MAX


def one_of(op: Any, kind: Any, known: tuple[str, ...]) -> str:
    """Return an attribute's value after verifying that it is one of `known`.

    Raises
    ------
    UnsupportedError
        It is not one of them.
    """
    if kind not in known:
        raise UnsupportedError(f"op {op.get_name()!r}: type {kind!r} is not {' or '.join(known)}")
    return str(kind)


def doubled_bias(op: Any, bias: Array, acc_fix_point: int) -> Array:
    """Return the bias of an op in halves of the accumulator's unit: ``q_b * 2**b``, int64.

    ``b = max(0, acc_fix_point - p_b + 1)``: the DPU doubles the accumulator, so
    the bias may have one more fractional bit. If the bias is finer still, its bytes
    in a compiled file are already shifted, although its fix point is unchanged.
    Source: executing the instructions of AMD's compiled models.
    """
    shift = max(0, acc_fix_point - input_fix_point(op, "bias") + 1)
    if shift > _FARTHEST_BIAS:
        raise UnsupportedError(f"op {op.get_name()!r}: bias shift {shift - 1} is out of range")
    return bias.astype(np.int64) << shift


_FARTHEST_BIAS = 30
"""Largest shift of a bias that is emulated; the DPU supports 17."""


def finish(acc: Array, op: Any, inputs: Inputs, acc_fix_point: int) -> Array:
    """Return `activate` of ``(2 acc + q_b * 2**b) / 2``, rounded once at the end.

    Parameters
    ----------
    acc : int64, output channels last
    acc_fix_point : fix point of `acc`
    """
    if not inputs.get("bias"):
        return activate(acc, op, acc_fix_point)
    acc = (acc << 1) + doubled_bias(op, inputs["bias"][0], acc_fix_point)
    return activate(acc, op, acc_fix_point + 1)


HARD_SIGMOID_FIX_POINT = 7
"""Fix point of the hard sigmoid inside a hard swish: values in [0, 1]."""


def hard_activation(q: Array, point: int, swish: bool, out_fix_point: int) -> Array:
    """Return the hard sigmoid or hard swish of int64 `q` at fix point `point`, as int8.

    See `tutelage.dpu.ops.activation` for the sources.
    """
    finest = max(point, 0)  # fix point at which both q and 3 are integers
    # A left shift by more than 24 bits does not change the saturated result.
    acc = np.maximum((q << min(finest - point, 24)) + (3 << min(finest, 40)), 0) * SIXTH_NUMERATOR
    gate_fix_point = HARD_SIGMOID_FIX_POINT if swish else out_fix_point
    gate = saturate(shift_round(acc, SIXTH_SHIFT + finest - gate_fix_point))
    if not swish:
        return gate
    return saturate(shift_round(q * gate, point + HARD_SIGMOID_FIX_POINT - out_fix_point))


def requantise(array: Array, from_fix_point: int, to_fix_point: int) -> Array:
    """Convert int8 values from one fix point to another."""
    if from_fix_point == to_fix_point:
        return array
    return saturate(shift_round(array.astype(np.int64), from_fix_point - to_fix_point))


def moving(move: Reference) -> Reference:
    """Return the int8 form of an op that only moves values: `move`, then requantisation."""

    def moved(op: Any, inputs: Inputs) -> Array:
        values = move(op, {"input": [inputs["input"][0]]})
        return requantise(values, input_fix_point(op), fix_point(op))

    return moved


def through_float(real: Reference) -> Reference:
    """Return the int8 form that dequantises, computes `real` in float32 and quantises."""

    def through(op: Any, inputs: Inputs) -> Array:
        x = dequantise(inputs["input"][0], input_fix_point(op))
        return quantise_int8(real(op, {"input": [x]}).astype(np.float64), fix_point(op))

    return through
