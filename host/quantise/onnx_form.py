"""The registry of functions that export the ops of a quantised graph to ONNX, by op type.

The quantised graph is exported rather than the student, because it has ops that no layer has, such
as those that clip. So functions are registered for op types, each in the file of the layer that
creates such ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tutelage.core.fixed_point import Array

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op


class OnnxGraph(Protocol):
    """The ONNX graph under construction, whose values have names and the layout NCHW.

    Attributes
    ----------
    rounds : whether activations are rounded; False: they are real numbers
    """

    rounds: bool

    def inputs(self, op: Op) -> list[str]:
        """Return the names of the values of an op's argument "input"."""

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add an ONNX node with one output, and return the output's name."""

    def constant(self, array: Array) -> str:
        """Add a constant, and return its name."""

    def scalar(self, value: float, dtype: Any = ...) -> str:
        """Add a constant of one value, float32 by default, and return its name."""

    def parameter(self, integers: Array, fix_point: int) -> str:
        """Add an integer constant and a node that dequantises it; return the name of the latter."""

    def bias(self, integers: Array, fix_point: int, x: str, weights_fix_point: int) -> str:
        """Add a bias for the product of `x` and weights, in the form that ONNX runtimes accept."""

    def keep_fix_point(self, x: str, y: str) -> None:
        """Record that `y` only selects values of `x`, so that it need not be rounded again."""

    def set_value(self, op: Op, value: str) -> None:
        """Record that `value` is also the value of `op`, which does not need a node."""


Form = Callable[[OnnxGraph, "Op"], str]
FORMS: dict[str, Form] = {}


def onnx_form(*op_types: str) -> Callable[[Form], Form]:
    """Register a function that adds ops of these types to a graph; it returns the value's name."""

    def register(form: Form) -> Form:
        FORMS.update(dict.fromkeys(op_types, form))
        return form

    return register
