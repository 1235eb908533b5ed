"""Interfaces for compiling op types to int8 ops of a compiled graph: `OpType.compile`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tutelage.core.fixed_point import RELU6_FIX_POINT, RELU6_HIGHEST, Array
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import type_of


@dataclass(frozen=True)
class Sink:
    """Where an op's result is rounded: the fix point, the rounded tensor and the fused op.

    The fused op is an activation, or the `mul` that applies the DPU's factor.
    """

    fix_point: int
    tensor: str  # the name of the rounded tensor
    fused: Any = None

    @property
    def nonlinear(self) -> str:
        """Name of the activation in compiled files.

        Raises
        ------
        Refusal
            A ReLU6 that the DPU clips at another value than the file requires.
        """
        kind = type_of(self.fused).nonlinear if self.fused else ""
        if kind != "RELU6" or self.fix_point == RELU6_FIX_POINT:
            return kind or "NONE"
        if self.fix_point > RELU6_FIX_POINT:
            return "RELU"  # int8 saturates below 6 at this fix point
        highest = RELU6_HIGHEST * 2.0**-self.fix_point
        raise Refusal(f"the DPU clips ReLU6 at {highest:g} at fix point {self.fix_point}")


class Compilation(Protocol):
    """State of one compilation: `tutelage.dpu.compiler.emulation`."""

    @property
    def model(self) -> Any:
        """The graph under construction: `tutelage.dpu.compiler.builder.CompiledModel`."""

    def computed(self, op: Any) -> list[Any]:
        """Return the non-constant inputs of an op."""

    def point(self, op: Any) -> int | None:
        """Return the fix point of an op's value if that is int8 * 2^-fix_point, else None."""

    def int8(self, op: Any) -> Any:
        """Return the op that gives a quantised op's value as int8 on the DPU."""

    def integers(self, fix: Any, what: str) -> tuple[Array, int]:
        """Return a parameter's int8 values and its fix point.

        Raises
        ------
        Refusal
            `what` is not a rounded constant.
        """
