"""The emulator's compiler: from a quantised .xmodel to the compiled form that the emulation runs.

    graph = compile_graph(Graph.deserialize("quantised.xmodel"))
    graph.serialize("model.xmodel")

What it does is what AMD's compiler does before it makes instructions: an op, its ReLU and the
`fix` behind them become one int8 op; parameters become int8 in REG_0; a value that meets others
in a concat takes the concat's fix point; what the DPU cannot compute stays in float32 on the CPU;
stretches of one device become subgraphs, with upload, download, fix2float and float2fix between
them. Names are those of AMD's compiled files (measured on PointPillars). There are no
instructions: `dpu_name` is the emulator's, and a board refuses the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.core.errors import UnsupportedError, contradictions
from tutelage.core.fixed_point import (
    INT8_MAX,
    MAX_ALIGNMENT,
    MAX_SHIFT,
    RELU6_FIX_POINT,
    RELU6_HIGHEST,
    Array,
    is_leaky_slope,
    least_bias_shift,
    sum_is_exact,
)
from tutelage.dpu.compiler.builder import QUANTISED, CompiledModel, constant_ops, shifted_bias
from tutelage.dpu.engine.program import CONSTANTS, INPUTS, graph_outputs, rounded_constant
from tutelage.dpu.ops import cpu_ops, fix_ops
from tutelage.dpu.ops.factors import needs_factor, scale_of
from tutelage.dpu.ops.limits import FUSED, MAX_OPERANDS, MAX_POOL, padding, window_limit
from tutelage.dpu.ops.resize_ops import picks, whole_factors
from tutelage.dpu.xmodel.graph import Graph, Op

_CONVOLUTIONS = (
    "conv2d",
    "depthwise-conv2d",
    "transposed-conv2d",
    "transposed-depthwise-conv2d",
)
_JOINS = ("add", "mul")
_SCALED = ("avgpool2d", "hard-sigmoid")
"""Ops that the DPU has with a factor of its own, a `mul` behind them (dpu/ops/factors.py)."""
_RESIZES = ("upsample", "resize")
_MOVES = ("reshape", "flatten", "squeeze", *_RESIZES, "reduction_max")
"""Ops that keep the integers they pick; on the CPU also transpose does."""
_POOLS = ("maxpool2d", "avgpool2d")


def compile_graph(graph: Graph) -> Graph:
    """The compiled form of a quantised graph.

    Raises
    ------
    UnsupportedError
        The graph is compiled already.
    XmodelError
        The graph contradicts itself.
    """
    if graph.get_root_subgraph().get_children_num():
        raise UnsupportedError(f"{graph.get_name()}: compiled already; give the quantised file")
    with contradictions(graph.get_name()):
        return _Compiler(graph).compile()


def on_cpu(graph: Graph) -> dict[str, str]:
    """The ops of a quantised graph that stay on the CPU, by name, each with the reason."""
    with contradictions(graph.get_name()):
        compiler = _Compiler(graph)
        compiler.place()
        return compiler.reasons


@dataclass(frozen=True)
class _Sink:
    """Where an op's result is rounded: to which fix point, after which fused op.

    That is an activation, or the `mul` that gives the op the DPU's factor.
    """

    fix_point: int
    tensor: str  # the name of the rounded tensor
    fused: Op | None = None

    @property
    def nonlinear(self) -> str:
        """The activation's name in compiled files.

        Raises
        ------
        _Refusal
            A ReLU6 that the DPU clips elsewhere than the file says.
        """
        kind = fix_ops.ACTIVATIONS.get(self.fused.get_type(), "NONE") if self.fused else "NONE"
        if kind != "RELU6" or self.fix_point == RELU6_FIX_POINT:
            return kind
        if self.fix_point > RELU6_FIX_POINT:
            return "RELU"  # int8 ends below 6 there
        highest = RELU6_HIGHEST * 2.0**-self.fix_point
        raise _Refusal(f"a ReLU6 at fix point {self.fix_point}, which the DPU clips at {highest:g}")


class _Refusal(Exception):
    """An op cannot run on the DPU; the text says why."""


class _Compiler:
    """One compilation.

    Attributes
    ----------
    outputs : the ops whose values the graph gives, in order
    parameters : the ops that depend on no input
    ints : the int8 op that holds a quantised op's value, by the quantised op's name
    floats : the float32 op that does
    reasons : why an op is on the CPU
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.model = CompiledModel(graph.get_name())
        self.outputs = dict.fromkeys(graph_outputs(graph))
        self.parameters = constant_ops(graph)
        self.ints: dict[str, Op] = {}
        self.floats: dict[str, Op] = {}
        self.reasons: dict[str, str] = {}
        self._moved: dict[tuple[str, str], Op] = {}  # uploads, downloads and conversions
        self._sinks: dict[str, _Sink | None] = {}

    def place(self) -> None:
        """Put every op on its device."""
        for op in self.graph.toposort():
            if op.get_name() not in self.ints and op not in self.parameters:
                self._add(op)

    def compile(self) -> Graph:
        """The whole compiled graph."""
        self.place()
        outputs = [self._float(op) for op in self.outputs]
        self._drop_unread(outputs)
        names = [op.get_name() for op in outputs]
        compiled = self.model.finish()
        compiled.set_attr("return_ops", names, "string_vec_value")
        return compiled

    def _drop_unread(self, outputs: list[Op]) -> None:
        """Remove ops that no output needs, such as a reshape before a dense layer."""
        graph = self.model.graph
        for op in reversed(graph.toposort()):
            if not op.get_fanout_num() and op not in outputs and op.get_type() not in INPUTS:
                graph.remove_op(op)

    # -- one op ---------------------------------------------------------------------------

    def _add(self, op: Op) -> None:
        """Put one op on a device."""
        if op.get_type() == "data":
            self._add_input(op)
            return
        if op.get_type() == "fix":
            self._add_fix(op)
            return
        try:
            self._add_on_dpu(op)
        except _Refusal as reason:
            self.reasons[op.get_name()] = str(reason)
            self._copy(op)

    def _add_input(self, op: Op) -> None:
        """int8 where all readers round it alike, as AMD's compiler makes it; else float32."""
        fixes = op.get_fanout_ops()
        dims = op.get_output_tensor().dims
        same = {int(f.get_attr("fix_point")) for f in fixes if _is_dpu_fix(f)}
        if len(same) == 1 and all(_is_dpu_fix(f) for f in fixes) and op not in self.outputs:
            data = self.model.data(op.get_name(), dims, same.pop())
            self._rename(data, fixes[0].get_name())
            self.ints |= {fix.get_name(): data for fix in fixes}
            return
        self.floats[op.get_name()] = self.model.graph.clone_op(op, {})
        self.floats[op.get_name()].set_attr("device", "USER")

    def _add_fix(self, op: Op) -> None:
        """A fix that belongs to no op before it: of a value that is real on the CPU."""
        source = op.get_input_op("input")
        held = self.ints.get(source.get_name())
        if held is not None and _rounds_to(op, fix_ops.fix_point(held)):
            self.ints[op.get_name()] = held  # rounds what is rounded alike already
        else:
            self._copy(op)

    def _copy(self, op: Op) -> None:
        """The op as it is, in float32 on the CPU."""
        inputs = {
            arg: [self._float(s) for s in sources] for arg, sources in op.get_input_ops().items()
        }
        self.floats[op.get_name()] = self._cpu(op, inputs)

    def _parameter(self, op: Op) -> Op:
        """What depends on no input, on the CPU."""
        if op.get_name() not in self.floats:
            inputs = {arg: [self._parameter(s) for s in sources]
                      for arg, sources in op.get_input_ops().items()}  # fmt: skip
            self.floats[op.get_name()] = self._cpu(op, inputs)
        return self.floats[op.get_name()]

    def _cpu(self, op: Op, inputs: dict[str, list[Op]]) -> Op:
        """A copy of `op`, also of a type that nobody knows here."""
        copied = self.model.graph.clone_op(op, inputs)
        copied.set_attr("device", "CPU")
        return copied

    # -- the DPU ---------------------------------------------------------------------------

    def _add_on_dpu(self, op: Op) -> None:
        kind = op.get_type()
        emit = _EMITTERS.get(kind)
        if emit is None:
            raise _Refusal(f"the DPU has no {kind}")
        sink = self._sink(op)
        if sink is None:
            raise _Refusal(self._why_no_sink(op))
        limit = window_limit(op)
        if limit:
            raise _Refusal(limit)
        if op.get_input_num("input") != len(self._values(op)) and op.get_type() != "matmul":
            raise _Refusal("an operand is a constant")
        for source in self._values(op):
            if self._grid(source) is None:
                raise _Refusal(f"its input {source.get_name()!r} is not rounded by a fix")
        made = emit(self, op, sink)
        self._rename(made, sink.tensor)
        ends = [op, *([sink.fused] if sink.fused else [])]
        self.ints |= {end.get_name(): made for end in ends}
        for reader in ends[-1].get_fanout_ops():
            if _rounds_to(reader, sink.fix_point):
                self.ints[reader.get_name()] = made

    def _values(self, op: Op) -> list[Op]:
        """The inputs that are computed."""
        return [s for s in op.get_input_ops_by_name("input") if s not in self.parameters]

    def _sink(self, op: Op) -> _Sink | None:
        """Where the op's result is rounded, or None where it leaves as a real number."""
        if op.get_name() not in self._sinks:
            self._sinks[op.get_name()] = self._find_sink(op)
        return self._sinks[op.get_name()]

    def _find_sink(self, op: Op) -> _Sink | None:
        readers, fused = op.get_fanout_ops(), self._fused(op)
        if fused is not None:
            readers = fused.get_fanout_ops()
        elif op.get_type() in _SCALED and needs_factor(op):
            return None
        last = fused or op
        readers = [] if last in self.outputs else readers  # it leaves before any of them rounds
        fixes = [reader for reader in readers if _is_dpu_fix(reader)]
        points = {int(fix.get_attr("fix_point")) for fix in fixes}
        if fixes and len(fixes) == len(readers) and len(points) == 1:
            return _Sink(points.pop(), fixes[0].get_name(), fused)
        if readers and all(reader.get_type() == "concat" for reader in readers):
            sinks = [self._sink(reader) for reader in readers]
            points = {sink.fix_point for sink in sinks if sink is not None}
            if len(points) == 1 and None not in sinks:
                return _Sink(points.pop(), f"{last.get_name()}_inserted_fix_0", fused)
        if (_moves(op) or op.get_type() in ("maxpool2d", "concat")) and not fused:
            grids = {self._grid(source) for source in self._values(op)}
            point = grids.pop()
            if not grids and point is not None:
                return _Sink(point, op.get_name())
        return None

    def _fused(self, op: Op) -> Op | None:
        """What the DPU computes together with an op: its activation, or the factor behind it."""
        if op in self.outputs:
            return None
        if op.get_type() in _SCALED:
            return scale_of(op)
        readers = op.get_fanout_ops()
        kind = fix_ops.ACTIVATIONS.get(readers[0].get_type()) if len(readers) == 1 else None
        fits = kind in FUSED.get(op.get_type(), ()) and _has_dpu_slope(readers[0])
        return readers[0] if fits else None

    def _why_no_sink(self, op: Op) -> str:
        readers = [reader.get_type() for reader in op.get_fanout_ops()]
        if len(readers) == 1 and readers[0] in fix_ops.ACTIVATIONS and op.get_type() in FUSED:
            return f"the DPU does not fuse this {readers[0]} with {op.get_type()}"
        if op.get_type() in _SCALED:
            return f"the DPU's {op.get_type()} has a factor that the file does not have"
        return "its result is not rounded by a fix"

    def _grid(self, op: Op) -> int | None:
        """The fix point of an op's value, where it is a multiple of 2^-fix_point within int8."""
        if op.get_name() in self.ints:
            return fix_ops.fix_point(self.ints[op.get_name()])
        if _is_dpu_fix(op):
            return int(op.get_attr("fix_point"))
        if (_moves(op) or op.get_type() in ("transpose", "maxpool2d")) and op.get_input_num():
            return self._grid(op.get_input_op("input"))
        return None

    def _int(self, op: Op) -> Op:
        """An op's value as int8 on the DPU."""
        name = op.get_name()
        if name in self.ints:
            held = self.ints[name]
            if held.get_attr("device") == "DPU":
                return held
            return self._uploaded(held)
        held = self.floats[name]
        point = self._grid(op)
        assert point is not None
        attrs = {**QUANTISED, "fix_point": point}
        rounded = self._once(
            "float2fix", held, lambda: self.model.from_float(f"{name}_float2fix", held, attrs)
        )
        return self._uploaded(rounded)

    def _uploaded(self, op: Op) -> Op:
        copied = self._once("upload", op, lambda: self.model.upload(op))
        self._rename(copied, f"{op.get_output_tensor().name}_upload_0")
        return copied

    def _float(self, op: Op) -> Op:
        """An op's value as float32 on the CPU."""
        name = op.get_name()
        if op in self.parameters:
            return self._parameter(op)
        if name in self.floats:
            return self.floats[name]
        held = self.ints[name]
        if held.get_attr("device") == "DPU":
            held = self._once("download", held, lambda: self._downloaded(self.ints[name]))
        tensor = held.get_output_tensor().name
        return self._once("fix2float", held, lambda: self.model.to_float(f"{tensor}_", held))

    def _downloaded(self, op: Op) -> Op:
        """AMD's compiler gives the copy the tensor's name, and the original another."""
        tensor = op.get_output_tensor().name
        copied = self.model.download(op)
        self._rename(op, f"{tensor}_download_0")
        self._rename(copied, tensor)
        return copied

    def _once(self, what: str, op: Op, make: Callable[[], Op]) -> Op:
        key = (what, op.get_name())
        if key not in self._moved:
            self._moved[key] = make()
        return self._moved[key]

    @staticmethod
    def _rename(op: Op, tensor: str) -> None:
        op.get_output_tensor()._name = tensor

    # -- emitters ---------------------------------------------------------------------------

    def _convolution(self, op: Op, sink: _Sink) -> Op:
        return self._convolve(
            op, sink, op.get_name(), [op.get_input_op("input"), op.get_input_op("weights")],
            self._integers(op.get_input_op("weights"), "weights"),
            stride=op.get_attr("stride"), pad=padding(op),
            dilation=cpu_ops.attr(op, "dilation", [1, 1]), kind=f"{op.get_type()}-fix",
        )  # fmt: skip

    def _convolve(
        self, op: Op, sink: _Sink, name: str, operands: list[Op], weights: tuple[Array, int],
        **window: Any,
    ) -> Op:  # fmt: skip
        """A convolution of the map `operands[0]` by the integers of the constant `operands[1]`."""
        accumulator = (self._grid(operands[0]) or 0) + weights[1]
        shift, nonlinear = accumulator - sink.fix_point, sink.nonlinear
        if not 0 <= shift <= MAX_SHIFT:
            raise _Refusal(f"output shift {shift}, the DPU has 0 to {MAX_SHIFT}")
        bias: tuple[Array | None, int] = (None, 0)
        names = [_constant_name(operands[1])]
        if op.get_input_num("bias"):
            bias = self._bias(op.get_input_op("bias"), accumulator, least_bias_shift(shift))
            names.append(_constant_name(op.get_input_op("bias")))
        return self.model.conv2d(
            name, self._map(operands[0]), *weights, *bias, sink.fix_point,
            nonlinear=nonlinear, names=(names[0], names[-1]), **window,
        )  # fmt: skip

    def _bias(self, fix: Op, accumulator: int, least: int) -> tuple[Array, int]:
        """A bias's integers and fix point, where the DPU takes them beside this accumulator."""
        bias, point = self._integers(fix, "bias")
        if not least <= accumulator - point <= MAX_SHIFT:
            raise _Refusal(f"bias shift {accumulator - point}, the DPU has {least} to {MAX_SHIFT}")
        if shifted_bias(bias, point - accumulator) is None:
            raise _Refusal(f"bias shift {accumulator - point}, which would round the bias")
        return bias, point

    def _integers(self, fix: Op, what: str) -> tuple[Array, int]:
        """A parameter's int8 values and its fix point."""
        if not _is_int8_fix(fix) or fix.get_input_op("input").get_type() not in CONSTANTS:
            raise _Refusal(f"its {what} are not a rounded constant")
        return rounded_constant(self.graph, fix)

    def _pool(self, op: Op, sink: _Sink) -> Op:
        source = op.get_input_op("input")
        kernel, stride, pad = op.get_attr("kernel"), op.get_attr("stride"), padding(op)
        if cpu_ops.attr(op, "global", False):
            _, height, width, _ = op.get_input_tensor("input").dims
            kernel, stride, pad = [width, height], [1, 1], [0, 0, 0, 0]
        if op.get_type() == "maxpool2d":
            if self._grid(source) != sink.fix_point:
                raise _Refusal("a max pool that changes the fix point")
            nonlinear, x = sink.nonlinear, self._int(source)
            return self.model.max_pool(op.get_name(), x, kernel, stride, pad, nonlinear)
        x = self._int(source)
        return self.model.avg_pool(op.get_name(), x, kernel, stride, sink.fix_point, pad)

    def _concat(self, op: Op, sink: _Sink) -> Op:
        sources = []
        for number, source in enumerate(op.get_input_ops_by_name("input")):
            value = self._int(source)
            if fix_ops.fix_point(value) != sink.fix_point:
                name = f"{op.get_name()}_requantised_{number}"
                value = self.model.add(name, [value], sink.fix_point)
            sources.append(value)
        return self.model.concat(op.get_name(), sources, int(op.get_attr("axis")))

    def _join(self, op: Op, sink: _Sink) -> Op:
        dims = [tensor.dims for tensor in op.get_input_tensors_by_name("input")]
        if len(dims) > MAX_OPERANDS:
            raise _Refusal(f"{len(dims)} operands, the DPU takes {MAX_OPERANDS}")
        if any(other != dims[0] for other in dims) and not _factor_for_channels(op, dims):
            raise _Refusal("its operands have different shapes")
        sources = op.get_input_ops_by_name("input")
        if op.get_type() == "add":
            self._check_sum([self._grid(source) or 0 for source in sources], sink.fix_point)
        values = [self._int(source) for source in sources]
        if op.get_type() == "mul":
            return self.model.multiply(op.get_name(), values, sink.fix_point)
        return self.model.add(op.get_name(), values, sink.fix_point, sink.nonlinear)

    @staticmethod
    def _check_sum(points: list[int], out: int) -> None:
        """Refuse a sum of which the DPU drops bits that the file keeps."""
        if max(points) - min(points) > MAX_ALIGNMENT or abs(out - min(points)) > MAX_ALIGNMENT:
            raise _Refusal(f"inputs with the fix points {points}, too far from each other")
        if not sum_is_exact(points, out):
            raise _Refusal(f"inputs with the fix points {points}, of which the DPU drops bits")

    def _hard_sigmoid(self, op: Op, sink: _Sink) -> Op:
        source = op.get_input_op("input")
        point = self._grid(source) or 0
        # The DPU does not stop at 1: int8 does at fix point 7, or the input does not get there.
        if sink.fix_point < fix_ops.HARD_SIGMOID_FIX_POINT and 3 * 2.0**point < INT8_MAX:
            raise _Refusal(f"a hard sigmoid at fix point {sink.fix_point}, which passes 1")
        return self.model.hard_sigmoid(op.get_name(), self._int(source), sink.fix_point)

    def _dense(self, op: Op, sink: _Sink) -> Op:
        """A matrix of constants is a convolution of 1x1, as AMD's compiler makes it."""
        given = op.get_input_ops_by_name("input")
        dims = given[0].get_output_tensor().dims
        if self._values(op) != [given[0]] or cpu_ops.attr(op, "transpose_a", False):
            raise _Refusal("its second operand is not a constant")
        if len(dims) != 2:
            raise _Refusal(f"a product of a tensor of {len(dims)} axes")
        matrix, point = self._integers(given[1], "weights")
        matrix = matrix if cpu_ops.attr(op, "transpose_b", False) else matrix.T
        weights = np.ascontiguousarray(matrix)[:, None, None], point
        name = f"{op.get_name()}(TransferMatMulToConv2d)"
        y = self._convolve(op, sink, name, given, weights, stride=(1, 1))
        return self.model.reshape(f"{sink.tensor}_reshaped", y, op.get_output_tensor().dims)

    def _map(self, op: Op) -> Op:
        """An op's value on the DPU; a vector [1, C] as a map of one pixel."""
        x = self._int(op)
        if x.get_output_tensor().ndim == 4:
            return x
        if x.get_type() == "reshape-fix":
            source = x.get_input_op("input")
            if source.get_output_tensor().dims[:3] == [1, 1, 1]:
                return source
        _, channels = x.get_output_tensor().dims
        return self.model.reshape(f"{x.get_name()}_pixel", x, [1, 1, 1, channels])

    def _move(self, op: Op, sink: _Sink) -> Op:
        source = op.get_input_op("input")
        if op.get_type() in _RESIZES and whole_factors(op) is None:
            raise _Refusal("it does not repeat each pixel a whole number of times")
        if self._grid(source) != sink.fix_point:
            raise _Refusal("it changes the fix point")
        if op.get_type() == "reduction_max":
            return self._reduction(op, source)
        shape = op.get_output_tensor().dims
        if op.get_type() in ("reshape", "flatten", "squeeze"):
            return self.model.reshape(op.get_name(), self._int(source), shape)
        return self.model.move(op.get_name(), "upsample-fix", self._int(source), op.get_attrs())

    def _reduction(self, op: Op, source: Op) -> Op:
        """The largest value along rows or columns is a max pool, as AMD's compiler makes it."""
        _, height, width, _ = source.get_output_tensor().dims
        axes = {axis % 4 for axis in op.get_attr("axis")}
        if not axes <= {1, 2} or not cpu_ops.attr(op, "keep_dims", False):
            raise _Refusal("a reduction that is no pool")
        kernel = [width if 2 in axes else 1, height if 1 in axes else 1]
        if max(kernel) > MAX_POOL:
            raise _Refusal(f"a reduction over {kernel[0]}x{kernel[1]}, the DPU has 1 to {MAX_POOL}")
        return self.model.max_pool(op.get_name(), self._int(source), kernel, [1, 1])


_EMITTERS: dict[str, Callable[[_Compiler, Op, _Sink], Op]] = {
    **dict.fromkeys(_CONVOLUTIONS, _Compiler._convolution),
    **dict.fromkeys(_POOLS, _Compiler._pool),
    **dict.fromkeys(_JOINS, _Compiler._join),
    **dict.fromkeys(_MOVES, _Compiler._move),
    "concat": _Compiler._concat,
    "hard-sigmoid": _Compiler._hard_sigmoid,
    "matmul": _Compiler._dense,
}


def _moves(op: Op) -> bool:
    """Whether the op keeps the integers that it picks."""
    return op.get_type() in _MOVES and (op.get_type() not in _RESIZES or picks(op))


def _is_dpu_fix(op: Op) -> bool:
    """Whether the op rounds to int8 as the DPU does."""
    mode = QUANTISED["round_mode"]
    return _is_int8_fix(op) and cpu_ops.attr(op, "round_mode", mode) == mode


def _rounds_to(op: Op, point: int) -> bool:
    """Whether the op rounds as the DPU does, to this fix point."""
    return _is_dpu_fix(op) and int(op.get_attr("fix_point")) == point


def _is_int8_fix(op: Op) -> bool:
    """Whether the op rounds to int8, in any way."""
    return (
        op.get_type() == "fix"
        and int(op.get_attr("bit_width")) == QUANTISED["bit_width"]
        and bool(cpu_ops.attr(op, "if_signed", True))
    )


def _has_dpu_slope(activation: Op) -> bool:
    """Whether an activation is not a leaky ReLU of another slope than the DPU's."""
    kind = activation.get_type()
    return kind != "leaky-relu" or is_leaky_slope(activation.get_attr("alpha"))


def _constant_name(fix: Op) -> str:
    """As AMD's compiler names a parameter: the constant's name with _new behind."""
    return f"{fix.get_input_op('input').get_name()}_new"


def _factor_for_channels(op: Op, dims: list[list[int]]) -> bool:
    """Whether a product is one of a map and a factor for each channel, in either order."""
    if op.get_type() != "mul" or len(dims) != 2:
        return False
    factors, full = sorted(dims, key=math.prod)
    return len(full) == 4 and factors == [*full[:1], 1, 1, full[3]]
