"""The factors that turn XIR's exact means and hard sigmoids into the DPU's.

XIR's `avgpool2d` is an exact mean and its `hard-sigmoid` divides by 6; the DPU multiplies by
``m / 2**n`` instead. AMD's exporter ties them together by a `mul` with a constant of one value
behind the op, and the `fix` behind that (vai_q_pytorch, its XIR exporter).
"""

from __future__ import annotations

import numpy as np

from tutelage.core.fixed_point import SIXTH_NUMERATOR, SIXTH_SHIFT, pool_reciprocal
from tutelage.dpu.engine.program import CONSTANTS, constant
from tutelage.dpu.ops.sliding_window import Window, window_of
from tutelage.dpu.xmodel.graph import Op


def pool_window(op: Op) -> Window:
    """The window of a pool, on the map that it reads."""
    return window_of(op.get_attrs(), *op.get_input_tensor("input", 0).dims[1:3])


def pool_factor(window: Window) -> float:
    """By what the DPU's average differs from the mean: ``area * m / 2**n``."""
    numerator, shift = pool_reciprocal(window.kernel_w, window.kernel_h)
    return window.area * numerator * 2.0**-shift


HARD_SIGMOID_FACTOR = 6 * SIXTH_NUMERATOR * 2.0**-SIXTH_SHIFT
"""By what the DPU's hard sigmoid differs from ``clip(x + 3, 0, 6) / 6``."""


def scale_of(op: Op) -> Op | None:
    """The `mul` that gives an avgpool2d or a hard-sigmoid the DPU's factor, None without one.

    None also where an average divides by another number at the border: the DPU does not.
    """
    if op.get_type() not in _FACTORS or op.get_fanout_num() != 1:
        return None
    readers = op.get_fanout_ops()
    if readers[0].get_type() != "mul":
        return None
    sources = readers[0].get_input_ops_by_name("input")
    others = [source for source in sources if source is not op]
    if len(sources) != 2 or len(others) != 1 or others[0].get_type() not in CONSTANTS:
        return None
    factor = constant(op.get_graph(), others[0])
    wanted = _FACTORS[op.get_type()](op)
    if wanted is None or factor.size != 1 or np.float32(factor.item()) != np.float32(wanted):
        return None
    return readers[0]


def divides_by_area(op: Op, window: Window) -> bool:
    """Whether an average pool divides every sum by the pixels of its kernel."""
    padded = window.pad_left or window.pad_right or window.pad_top or window.pad_bottom
    counted = (op.get_attr(a) if op.has_attr(a) else True for a in _COUNTED)
    return not padded or all(counted)


_COUNTED = ("count_include_pad", "count_include_invalid")


def _average(op: Op) -> float | None:
    window = pool_window(op)
    return pool_factor(window) if divides_by_area(op, window) else None


_FACTORS = {"avgpool2d": _average, "hard-sigmoid": lambda op: HARD_SIGMOID_FACTOR}


def needs_factor(op: Op) -> bool:
    """Whether the DPU has an op, without its factor, only nearly."""
    return _FACTORS[op.get_type()](op) != 1
