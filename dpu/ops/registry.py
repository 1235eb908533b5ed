"""Registry of op types: each is described by one object and registered by its file.

A file of this folder contains everything about a family of op types: reference functions, output
shapes, limits of the DPU, work, the lowering to the fast engine and to a compiled op, and how
tools show it. The engines, the compiler, `inspect` and `predict` query the objects and have no
lists of op types themselves. To add an op type, add a file:

    class Exponential(OpType): ...

    register(Exponential("exp", exponential))

Nothing here needs more than numpy, because the board computes its CPU ops with this folder alone.
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
"""An op of XIR: `tutelage.dpu.xmodel.op.Op`, or the class of AMD's library on a board."""

Reference = Callable[[Op, Inputs], Array]
"""Function that computes an op from its input arrays, by argument name, for any batch size."""

INT8_SUFFIX = "-fix"


class OpType:
    """One of XIR's op types, in its real and its int8 form.

    The real form, `name`, occurs in quantised files and on the CPU, and computes real numbers. The
    int8 form, usually `name`-fix, occurs in compiled files and computes integers.

    Parameters
    ----------
    name : the type's name in .xmodels
    real, int8 : reference functions of the two forms; None for a form without one
    int8_type : name of the int8 form
    """

    source = ""
    """ "input" if the caller provides the value, "constant" if the file does, "" if computed."""

    definition: Definition | None = None
    """XIR's arguments and attributes, for types that are written to files."""

    gives_int8 = False
    """Whether the real form's result is int8, as for a quantisation."""

    names_subgraph = True
    """Whether AMD's compiler names a subgraph after a first op of this type."""

    transparent = False
    """Whether the value is unchanged (a copy between devices, a dequantisation)."""

    rounds = False
    """Whether it rounds to the fix point in its attribute `fix_point`."""

    joins = False
    """Whether all its inputs take the fix point of its result, as in a concat."""

    moves = False
    """Whether its result consists of values of its inputs, with their fix point."""

    same_order = False
    """Whether its result has the values of its input in the same order."""

    nonlinear = ""
    """The activation's name in the attribute `nonlinear` of compiled ops that it is fused into."""

    fuses: tuple[str, ...] = ()
    """The activations that the DPU can fuse into it, by `nonlinear`."""

    on_dpu = False
    """Whether the real form can be compiled to a DPU op, by `compile`."""

    scaled = False
    """Whether the DPU's op differs by a factor, a `mul` after the real form (factors.py)."""

    dense = False
    """Whether it multiplies by a matrix."""

    permutes = False
    """Whether it permutes its input's axes as given by the attribute `order`."""

    becomes = ""
    """The kind of layer that it is compiled to, "" if the same."""

    family = "other"
    """Category in drawings: "conv", "pool", "join" or "other"."""

    bounded = False
    """Whether its range is known beforehand, so that values at its ends do not indicate a wrong fix
    point."""

    free = False
    """Whether it needs no instruction: its result has the same bytes in another shape, or its
    producer writes them to their place (as in AMD's compiled files)."""

    left_to_cpu = False
    """Whether compilers are assumed to leave its int8 form to the CPU."""

    spreads = False
    """Whether its strides spread the input: a transposed convolution."""

    takes_rows = False
    """Whether the DPU can consume the rows of its input while they are being computed."""

    on_array = False
    """Whether the DPU computes it on its multiplier array, with weights per output channel, rather
    than on its MISC engine."""

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
        dims : dims of the first input; [] if the argument `input` is empty

        Raises
        ------
        UnsupportedError
            The inputs do not fit the op.
        """
        return dims

    def window(self, op: Op) -> Window:
        """Return the sliding window over the input, for ops with a kernel."""
        return window_of(op.get_attrs(), *op.get_input_tensor("input", 0).dims[1:3])

    def padding(self, op: Op) -> list[int]:
        """Return the padding [left, right, top, bottom] of the window, derived from `pad_mode`."""
        window = self.window(op)
        return [window.pad_left, window.pad_right, window.pad_top, window.pad_bottom]

    # -- engines -----------------------------------------------------------------------------

    def keeps_batch(self, op: Op, moving: Sequence[Op]) -> bool:
        """Return whether the op treats the images of a batch independently.

        Parameters
        ----------
        moving : its non-constant inputs, at least one
        """
        return True

    def grid(self, op: Op, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> Grid | None:
        """Return the grid of the real form's values if they are exact in float32, else None.

        Parameters
        ----------
        inputs : grids of the non-constant inputs, at least one
        constants : constant values by op name
        """
        return None

    takes_constants = False
    """Whether `grid` supports constants in the argument `input`."""

    def scaled_grid(self, op: Op, x: Grid) -> Grid | None:
        """Return the grid of a `scaled` type that is lowered together with its factor, or None."""
        return None

    def int8_is_exact(self, op: Op, inputs: Sequence[Grid], constants: Mapping[str, Array]) -> bool:
        """Return whether `emit` computes the int8 form exactly; parameters as for `grid`."""
        return False

    def emit(self, op: Op, graph: OnnxGraph) -> tuple[str, bool]:
        """Emit the op, in its real or int8 form, as float32 ONNX nodes.

        Returns
        -------
        the name of the result, and whether it is in NCHW (else in the file's axis order)
        """
        raise NotImplementedError(f"{self.name} has no lowering to ONNX")

    # -- the DPU -----------------------------------------------------------------------------

    def activation(self, op: Op) -> str:
        """Return `nonlinear` if the DPU's activation of that name computes this op, else ""."""
        return self.nonlinear

    def factor(self, op: Op) -> float | None:
        """Return the factor by which the DPU differs, for a `scaled` type; None if it has none."""
        return None

    def limit(self, op: Op) -> str:
        """Return why the DPU does not support the real form's windows and channels, else ""."""
        return ""

    def keeps_integers(self, op: Op) -> bool:
        """Return whether, at one fix point, the result's integers are integers of the inputs."""
        return False

    def compile(self, op: Op, sink: Sink, to: Compilation) -> Op:
        """Add and return the int8 op that is equivalent to the real form and its rounding.

        Raises
        ------
        Refusal
            The DPU cannot compute it exactly.
        """
        raise NotImplementedError(f"{self.name} cannot be compiled")

    def engine_layers(self, op: Op, constants: Mapping[str, Array]) -> Sequence[EngineLayer]:
        """Return the layers that the DPU's engines compute for the int8 form, in order.

        Parameters
        ----------
        constants : int8 values of parameters, by op name

        Raises
        ------
        Refusal
            No instruction computes it.
        """
        raise Refusal(f"the DPU has no instructions for {op.get_type()}")

    # -- layers ------------------------------------------------------------------------------

    def kind(self, op: Op) -> str:
        """Return the name of the kind of layer of an op, in either form."""
        return self.name

    def macs(self, op: Op, taps: Sequence[int] | None) -> int:
        """Return the multiply-accumulates for one image.

        Parameters
        ----------
        taps : dims of the constant weights; None if there are none
        """
        return 0 if taps is None else math.prod(taps)

    def is_dense(self, op: Op, weights: Op) -> bool:
        """Return whether each value may sum the whole input times the constant `weights`."""
        return self.dense

    def matrix(self, op: Op, weights: Array, outputs: int) -> Array:
        """Return the weights of a dense layer as (outputs, inputs)."""
        return weights.reshape(outputs, -1)

    def depth(self, op: Op, taps: Sequence[int]) -> int:
        """Return the number of input channels per output value, given the dims of the weights."""
        return 0

    def work(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> int:
        """Return the operations, by the rules of the attribute `workload_on_arch`.

        Parameters
        ----------
        operation : a layer in `predict`
        inputs : shapes of its inputs
        """
        shapes = (*inputs, *operation.constants)
        return sum(value_work(*shape, array) for shape in shapes)

    def cycles(self, operation: Operation, inputs: Sequence[Shape], array: DpuArray) -> float:
        """Return the least number of cycles of a core; parameters as for `work`."""
        return self.work(operation, inputs, array) / alu_bytes_per_cycle(array)

    def bank_words(self, operation: Operation, array: DpuArray) -> int:
        """Return the weight bank words per output channel, for ops with `on_array`."""
        return 0

    @property
    def predicted_on_dpu(self) -> bool:
        """Whether the DPU is assumed to compute such a layer if the file names no device."""
        return self.on_dpu or (self.int8 is not None and not self.left_to_cpu)


_KINDS: dict[str, OpType] = {}
_BY_TYPE: dict[str, OpType] = {}  # with and without the suffix


def register(*op_types: OpType) -> None:
    """Register op types.

    Raises
    ------
    ValueError
        A type of the same name is already registered.
    """
    for op_type in op_types:
        if op_type.name in _KINDS:
            raise ValueError(f"op type {op_type.name!r} is registered twice")
        _KINDS[op_type.name] = op_type
        _BY_TYPE[op_type.name] = _BY_TYPE[op_type.name + INT8_SUFFIX] = op_type


def find(type_: str) -> OpType | None:
    """Return the op type of this name, real or int8, or None if it is unknown."""
    return _BY_TYPE.get(type_)


def op_type(type_: str) -> OpType:
    """Return the op type of this name; for an unknown name, a type with all defaults."""
    return find(type_) or OpType(type_.removesuffix(INT8_SUFFIX))


def type_of(op: Op) -> OpType:
    """Return the `op_type` of an op."""
    return op_type(op.get_type())


def is_int8(type_: str) -> bool:
    """Return whether the name is that of an int8 form."""
    found = _KINDS.get(type_)
    return type_.endswith(INT8_SUFFIX) or (found is not None and found.int8_type == type_)


def int8_type(type_: str) -> str:
    """Return the name of the int8 form of a type."""
    return op_type(type_).int8_type


def reference(type_: str) -> Reference | None:
    """Return the reference function of the form with this name, or None."""
    found = find(type_)
    if found is None:
        return None
    return found.int8 if is_int8(type_) else found.real


def known_types() -> Iterator[OpType]:
    """Iterate over all op types, by name."""
    for name in sorted(_KINDS):
        yield _KINDS[name]


def computed_types() -> tuple[list[str], list[str]]:
    """Return the names of all types with a reference function: real and int8 forms."""
    types = list(known_types())
    int8 = sorted(t.int8_type for t in types if t.int8 is not None)
    return [t.name for t in types if t.real is not None], int8


def activation_of(op: Op) -> str:
    """Return the name, in `nonlinear`, of the DPU activation that a real op is equivalent to.

    "" if it is not an activation, or one with another slope.
    """
    kind = type_of(op)
    return kind.activation(op) if kind.nonlinear and op.get_type() == kind.name else ""


def activation_type(nonlinear: str) -> str:
    """Return the op type of an activation, by its name in the attribute `nonlinear`."""
    return next(t.name for t in _KINDS.values() if t.nonlinear == nonlinear)
