"""Factors that turn XIR's exact means and hard sigmoids into the DPU's.

XIR's `avgpool2d` is an exact mean and its `hard-sigmoid` divides by 6; the DPU multiplies by
``m / 2**n`` instead. AMD's exporter expresses this by a `mul` with a scalar constant after the op,
followed by the `fix` (vai_q_pytorch, its XIR exporter).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.dpu.ops.data import constant
from tutelage.dpu.ops.registry import type_of

SCALING = "mul"
"""The op type that multiplies by the factor."""


def scale_of(op: Any) -> Any:
    """Return the `mul` with the DPU's factor after an avgpool2d or hard-sigmoid, or None.

    Also None if an average divides by another number at the border, which the DPU cannot.
    """
    kind = type_of(op)
    if not kind.scaled or kind.name != op.get_type() or op.get_fanout_num() != 1:
        return None
    (reader,) = op.get_fanout_ops()
    if reader.get_type() != SCALING:
        return None
    sources = reader.get_input_ops_by_name("input")
    others = [source for source in sources if source is not op]
    if len(sources) != 2 or len(others) != 1 or type_of(others[0]).source != "constant":
        return None
    factor = constant(op.get_graph(), others[0])
    wanted = kind.factor(op)
    if wanted is None or factor.size != 1 or np.float32(factor.item()) != np.float32(wanted):
        return None
    return reader


def needs_factor(op: Any) -> bool:
    """Return whether the DPU computes a `scaled` op only approximately without its factor."""
    return type_of(op).factor(op) != 1
