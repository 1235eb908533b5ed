"""The registry of ONNX forms, by the type of an op in a quantised graph.

What is exported is the quantised graph, not the student: it has ops that no layer has, such as
those that clip. Hence a form is registered for an op type, in the file of the layer that makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from tutelage.core.fixed_point import Array

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op


class OnnxGraph(Protocol):
    """The ONNX graph under construction, whose values are named and NCHW.

    Attributes
    ----------
    rounds : False where activations stay real numbers
    """

    rounds: bool

    def inputs(self, op: Op) -> list[str]:
        """Return the values of an op's argument "input"."""

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add an ONNX node and return the name of its one output."""

    def constant(self, array: Array) -> str:
        """Add a constant as it is."""

    def scalar(self, value: float, dtype: Any = ...) -> str:
        """Add a constant of one value, float32 by default."""

    def parameter(self, integers: Array, fix_point: int) -> str:
        """Add an integer constant and what dequantises it."""

    def bias(self, integers: Array, fix_point: int, x: str, weights_fix_point: int) -> str:
        """Add a bias to what `x` and weights make, in the form that runtimes take."""

    def keep_fix_point(self, x: str, y: str) -> None:
        """Say that `y` picks values of `x`, so that rounding it again changes nothing."""

    def set_value(self, op: Op, value: str) -> None:
        """Say that `value` is also that of `op`, which then adds nothing."""


Form = Callable[[OnnxGraph, "Op"], str]
FORMS: dict[str, Form] = {}


def onnx_form(*op_types: str) -> Callable[[Form], Form]:
    """Register the function that adds ops of these types to an ONNX graph."""

    def register(form: Form) -> Form:
        FORMS.update(dict.fromkeys(op_types, form))
        return form

    return register
