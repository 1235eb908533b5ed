"""The op types that are known here: each is described by one object and registered in its file.

A file of this folder holds all that is known of a family of op types: reference functions, output
shapes, what the DPU takes, work, the lowering to the fast engine and to a compiled op, and how
tools show it. The engines, the compiler, `inspect` and `predict` ask the objects and have no lists
of op types of their own. To add an op type, add a file:

    class Exponential(OpType): ...

    register(Exponential("exp", exponential))

Nothing here needs more than numpy, as the board computes its CPU ops with this folder alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tutelage.core.fingerprint import DpuArray
from tutelage.core.fixed_point import Array, Inputs
from tutelage.dpu.ops.definition import Definition
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.sliding_window import Window, window_of
from tutelage.dpu.ops.work import Operation, Shape, alu_bytes_per_cycle, value_work

if TYPE_CHECKING:
    from tutelage.dpu.ops.compiling import Compilation, Sink
    from tutelage.dpu.ops.engine_layers import EngineLayer
    from tutelage.dpu.ops.lowering import Grid, OnnxGraph

Op = Any
"""An op of XIR: `tutelage.dpu.xmodel.op.Op`, or on a board that of AMD's library."""

Reference = Callable[[Op, Inputs], Array]
"""Computes an op from the arrays of its inputs, by argument name, for any batch size."""

INT8_SUFFIX = "-fix"


class OpType:
    """One of XIR's op types, in its real and its int8 form.

    The real form, `name`, is in quantised files and on the CPU, and computes real numbers. The int8
    form, usually `name`-fix, is in compiled files and computes integers.

    Parameters
    ----------
    name : the type's name in .xmodels
    real, int8 : reference functions of the two forms; None where there is none
    int8_type : name of the int8 form
    """

    source = ""
    """ "input" or "constant" where the value is fed or in the file, "" where it is computed."""

    definition: Definition | None = None
    """Arguments and attributes by XIR, where a written file needs them."""

    gives_int8 = False
    """Whether the real form's result is int8, as that of a quantisation."""

    names_subgraph = True
    """Whether AMD's compiler names a subgraph after an op of this type that it begins with."""

    transparent = False
    """Whether the value stays what it is (a copy between devices, a dequantisation)."""

    rounds = False
    """Whether it rounds to the fix point in its attribute `fix_point`."""

    joins = False
    """Whether all that it reads takes the fix point of its result, as in a concat."""

    moves = False
    """Whether its result has values of its inputs only; they keep their fix point."""

    same_order = False
    """Whether its result has the values of its input in the same order."""

    nonlinear = ""
    """The activation's name in the attribute `nonlinear` of compiled ops that it is fused with."""

    fuses: tuple[str, ...] = ()
    """The activations that the DPU computes at its end, by `nonlinear`."""

    on_dpu = False
    """Whether the compiler makes a DPU op of the real form; `compile` says how."""

    scaled = False
    """Whether the DPU has it with a factor, which follows the real form as a `mul` (factors.py)."""

    dense = False
    """Whether it multiplies by a matrix."""

    permutes = False
    """Whether it has its input's axes in the order of the attribute `order`."""

    becomes = ""
    """The kind of layer that a compiler makes of it, where that is another one."""

    family = "other"
    """What it is drawn as: "conv", "pool", "join" or "other"."""

    bounded = False
    """Whether its range is known beforehand, so that values at its ends are no sign of a wrong fix
    point."""

    free = False
    """Whether it has no instruction of its own: the same bytes under another shape or written to
    their place by what computes them (so in AMD's compiled files)."""

    left_to_cpu = False
    """Whether a compiler is assumed to leave its int8 form to the CPU."""

    spreads = False
    """Whether its strides are inside the input: a transposed convolution."""

    takes_rows = False
    """Whether the DPU takes the rows of what comes before while they are computed."""

    on_array = False
    """Whether the DPU computes it on its array of multipliers, with weights for each output
    channel; else its MISC engine does."""

    def __init__(
        self,
        name: str,
        real: Reference | None = None,
        int8: Reference | None = None,
        int8_type: str = "",
    ) -> None:
        self.name = name
        self.real, self.int8 = real, int8
        self.int8_type = int8_type or name + INT8_SUFFIX

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # -- XIR ---------------------------------------------------------------------------------

    def shape(self, op: Op, dims: list[int]) -> list[int]:
        """Return the output's dims.

        Parameters
        ----------
        dims : of the first input; [] where the argument `input` reads nothing

        Raises
        ------
        UnsupportedError
            The inputs do not fit the op.
        """
        return dims

    def window(self, op: Op) -> Window:
        """Return the kernel's walk over the input, for ops with a kernel."""
        return window_of(op.get_attrs(), *op.get_input_tensor("input", 0).dims[1:3])

    def padding(self, op: Op) -> list[int]:
        """Return [left, right, top, bottom] that the window needs, as `pad_mode` makes them."""
        window = self.window(op)
        return [window.pad_left, window.pad_right, window.pad_top, window.pad_bottom]

    # -- engines -----------------------------------------------------------------------------

    def keeps_batch(self, op: Op, moving: Sequence[Op]) -> bool:
        """Whether the op treats each image of a batch by itself.

        Parameters
        ----------
        moving : the ops that it reads and that are not constant, at least one
        """
        return True

    def grid(self, op: Op, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        """Return the grid of the real form's values where float32 has them exactly, else None.

        Parameters
        ----------
        inputs : the grids of what it reads and is not constant, at least one
        constants : constant values by op name
        """
        return None

    takes_constants = False
    """Whether `grid` knows what to do where some of the argument `input` is constant."""

    def scaled_grid(self, op: Op, x: Grid) -> Grid | None:
        """Return as `grid`, for a `scaled` type that is lowered together with its factor."""
        return None

    def int8_is_exact(self, op: Op, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> bool:
        """Whether `emit` gives the int8 form's integers exactly; parameters as of `grid`."""
        return False

    def emit(self, op: Op, graph: OnnxGraph) -> tuple[str, bool]:
        """Write the op, in the form that it has, as float32 ONNX nodes.

        Returns
        -------
        the name of the result, and whether it is in NCHW (else in the file's own order)
        """
        raise NotImplementedError(f"{self.name} is not lowered")

    # -- the DPU -----------------------------------------------------------------------------

    def activation(self, op: Op) -> str:
        """Return `nonlinear` where the DPU's activation of that name is this op's function."""
        return self.nonlinear

    def factor(self, op: Op) -> float | None:
        """Return the factor by which the DPU differs, for a `scaled` type; None for "not so"."""
        return None

    def limit(self, op: Op) -> str:
        """Return why the DPU cannot compute the real form's windows and channels; "" if it can."""
        return ""

    def keeps_integers(self, op: Op) -> bool:
        """Whether the integers of the result are integers of the inputs, for one fix point."""
        return False

    def compile(self, op: Op, sink: Sink, to: Compilation) -> Op:
        """Add the int8 op that does what the real form and its rounding do; return it.

        Raises
        ------
        Refusal
            The DPU cannot compute it so.
        """
        raise NotImplementedError(f"{self.name} is not compiled")

    def engine_layers(self, op: Op, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        """Return what the DPU's engines compute for the int8 form, in order.

        Parameters
        ----------
        constants : int8 values of parameters, by op name

        Raises
        ------
        Refusal
            No instruction does it.
        """
        raise Refusal(f"the DPU has no instructions for {op.get_type()}")

    # -- layers ------------------------------------------------------------------------------

    def kind(self, op: Op) -> str:
        """Return what the layer of an op, in either form, is called."""
        return self.name

    def macs(self, op: Op, taps: Sequence[int] | None) -> int:
        """Return the multiply-accumulates for one image.

        Parameters
        ----------
        taps : dims of the constant weights; None without
        """
        return 0 if taps is None else math.prod(taps)

    def is_dense(self, op: Op, weights: Op) -> bool:
        """Whether each of its values may sum over its whole input times the constant `weights`."""
        return self.dense

    def matrix(self, op: Op, weights: Array, outputs: int) -> Array:
        """Return the weights of a dense layer as (outputs, inputs)."""
        return weights.reshape(outputs, -1)

    def depth(self, op: Op, taps: Sequence[int]) -> int:
        """Return how many input channels one output value sums over, by the dims of the weights."""
        return 0

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        """Return the work by the rules of the attribute `workload_on_arch`.

        Parameters
        ----------
        operation : a layer as `predict` sees it
        inputs : shapes of what it reads
        """
        shapes = (*inputs, *operation.constants)
        return sum(value_work(*shape, array) for shape in shapes)

    def cycles(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> float:
        """Return the least cycles in which a core computes it; parameters as of `work`."""
        return self.work(operation, inputs, array) / alu_bytes_per_cycle(array)

    def bank_words(self, operation: Operation, array: DpuArray) -> int:
        """Return the words of a weight bank that one output channel takes, of an op `on_array`."""
        return 0

    @property
    def predicted_on_dpu(self) -> bool:
        """Whether the DPU computes such a layer, where the file does not name the device."""
        return self.on_dpu or (self.int8 is not None and not self.left_to_cpu)


_KINDS: dict[str, OpType] = {}
_BY_TYPE: dict[str, OpType] = {}  # with and without the suffix


def register(*op_types: OpType) -> None:
    """Make op types known.

    Raises
    ------
    ValueError
        One of this name is known already.
    """
    for op_type in op_types:
        if op_type.name in _KINDS:
            raise ValueError(f"op type {op_type.name!r} is registered twice")
        _KINDS[op_type.name] = op_type
        _BY_TYPE[op_type.name] = _BY_TYPE[op_type.name + INT8_SUFFIX] = op_type


def find(type_: str) -> OpType | None:
    """Return the op type of this name, real or int8, or None where it is not known."""
    return _BY_TYPE.get(type_)


def op_type(type_: str) -> OpType:
    """Return as `find`; for a type that is not known one with all defaults."""
    return find(type_) or OpType(type_.removesuffix(INT8_SUFFIX))


def type_of(op: Op) -> OpType:
    """Return the `op_type` of an op."""
    return op_type(op.get_type())


def is_int8(type_: str) -> bool:
    """Whether the name is that of an int8 form."""
    found = _KINDS.get(type_)
    return type_.endswith(INT8_SUFFIX) or (found is not None and found.int8_type == type_)


def int8_type(type_: str) -> str:
    """Return the name of the int8 form of a type."""
    return op_type(type_).int8_type


def reference(type_: str) -> Reference | None:
    """Return the reference function of the form of this name, or None where there is none."""
    found = find(type_)
    if found is None:
        return None
    return found.int8 if is_int8(type_) else found.real


def known_types() -> Iterator[OpType]:
    """Iterate over all op types, by name."""
    for name in sorted(_KINDS):
        yield _KINDS[name]


def computed_types() -> tuple[list[str], list[str]]:
    """Return the names of all types with a reference function: real ones and int8 ones."""
    types = list(known_types())
    int8 = sorted(t.int8_type for t in types if t.int8 is not None)
    return [t.name for t in types if t.real is not None], int8


def activation_of(op: Op) -> str:
    """Return the name in the attribute `nonlinear` of the DPU's activation that a real op is.

    "" where it is not one, or one with another slope.
    """
    kind = type_of(op)
    return kind.activation(op) if kind.nonlinear and op.get_type() == kind.name else ""


def activation_type(nonlinear: str) -> str:
    """Return the op type of an activation, by its name in the attribute `nonlinear`."""
    return next(t.name for t in _KINDS.values() if t.nonlinear == nonlinear)
