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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpu import cpu_ops, fix_ops
from dpu.arithmetic import MAX_SHIFT, Array, is_leaky_slope, least_bias_shift
from dpu.builder import QUANTISED, CompiledModel, constant_ops
from dpu.errors import UnsupportedError, contradictions
from dpu.limits import MAX_POOL, window_limit
from dpu.program import CONSTANTS, graph_outputs, rounded_constant
from dpu.xir import Graph, Op

_ACTIVATIONS = {"relu": "RELU", "relu6": "RELU6", "leaky-relu": "LEAKYRELU"}
_CONVOLUTIONS = ("conv2d", "depthwise-conv2d", "transposed-conv2d")
_JOINS = ("add", "mul")
_MOVES = ("reshape", "flatten", "squeeze", "upsample", "reduction_max")
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
    """Where an op's result is rounded: to which fix point, after which activation."""

    fix_point: int
    tensor: str  # the name of the rounded tensor
    activation: Op | None = None

    @property
    def nonlinear(self) -> str:
        return _ACTIVATIONS[self.activation.get_type()] if self.activation else "NONE"


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
        names = [self._float(op).get_name() for op in self.outputs]
        compiled = self.model.finish()
        compiled.set_attr("return_ops", names, "string_vec_value")
        return compiled

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
            raise _Refusal("its result is not rounded by a fix")
        limit = window_limit(op)
        if limit:
            raise _Refusal(limit)
        if op.get_input_num("input") != len(self._values(op)):
            raise _Refusal("an operand is a constant")
        for source in self._values(op):
            if self._grid(source) is None:
                raise _Refusal(f"its input {source.get_name()!r} is not rounded by a fix")
        made = emit(self, op, sink)
        self._rename(made, sink.tensor)
        ends = [op, *([sink.activation] if sink.activation else [])]
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
        readers, activation = op.get_fanout_ops(), None
        takes = op.get_type() in _CONVOLUTIONS or op.get_type() == "add"
        if takes and len(readers) == 1 and _fuses(readers[0]) and op not in self.outputs:
            activation = readers[0]
            readers = activation.get_fanout_ops()
        last = activation or op
        readers = [] if last in self.outputs else readers  # it leaves before any of them rounds
        fixes = [reader for reader in readers if _is_dpu_fix(reader)]
        points = {int(fix.get_attr("fix_point")) for fix in fixes}
        if fixes and len(fixes) == len(readers) and len(points) == 1:
            return _Sink(points.pop(), fixes[0].get_name(), activation)
        if readers and all(reader.get_type() == "concat" for reader in readers):
            sinks = [self._sink(reader) for reader in readers]
            points = {sink.fix_point for sink in sinks if sink is not None}
            if len(points) == 1 and None not in sinks:
                return _Sink(points.pop(), f"{last.get_name()}_inserted_fix_0", activation)
        if op.get_type() in (*_MOVES, "maxpool2d", "concat") and not activation:
            grids = {self._grid(source) for source in self._values(op)}
            point = grids.pop()
            if not grids and point is not None:
                return _Sink(point, op.get_name())
        return None

    def _grid(self, op: Op) -> int | None:
        """The fix point of an op's value, where it is a multiple of 2^-fix_point within int8."""
        if op.get_name() in self.ints:
            return fix_ops.fix_point(self.ints[op.get_name()])
        if _is_dpu_fix(op):
            return int(op.get_attr("fix_point"))
        if op.get_type() in (*_MOVES, "transpose", "maxpool2d") and op.get_input_num():
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
        weights, weights_point = self._integers(op, "weights")
        bias: Array | None = None
        bias_point = 0
        if op.get_input_num("bias"):
            bias, bias_point = self._integers(op, "bias")
        source = op.get_input_op("input")
        accumulator = (self._grid(source) or 0) + weights_point
        shift = accumulator - sink.fix_point
        least = least_bias_shift(shift)
        if not 0 <= shift <= MAX_SHIFT:
            raise _Refusal(f"output shift {shift}, the DPU has 0 to {MAX_SHIFT}")
        if bias is not None and not least <= accumulator - bias_point <= MAX_SHIFT:
            text = f"bias shift {accumulator - bias_point}, the DPU has {least} to {MAX_SHIFT}"
            raise _Refusal(text)
        if bias is not None and np.any(np.int64(bias) % (1 << max(0, bias_point - accumulator))):
            raise _Refusal(f"bias shift {accumulator - bias_point}, which would round the bias")
        return self.model.conv2d(
            op.get_name(), self._int(source), weights, weights_point, bias, bias_point,
            sink.fix_point, stride=op.get_attr("stride"), pad=_pad(op),
            dilation=cpu_ops.attr(op, "dilation", [1, 1]), nonlinear=sink.nonlinear,
            kind=f"{op.get_type()}-fix", names=self._parameter_names(op),
        )  # fmt: skip

    def _integers(self, op: Op, arg: str) -> tuple[Array, int]:
        """A parameter's int8 values and its fix point."""
        fix = op.get_input_op(arg)
        if not _is_int8_fix(fix) or fix.get_input_op("input").get_type() not in CONSTANTS:
            raise _Refusal(f"its {arg} are not a rounded constant")
        return rounded_constant(self.graph, fix)

    def _parameter_names(self, op: Op) -> tuple[str, str]:
        """As AMD's compiler names them: the constant's name with _new behind."""
        args = [a for a in ("weights", "bias") if op.get_input_num(a)]
        names = [f"{op.get_input_op(a).get_input_op('input').get_name()}_new" for a in args]
        return names[0], names[-1]

    def _pool(self, op: Op, sink: _Sink) -> Op:
        source = self._int(op.get_input_op("input"))
        kernel, stride, pad = op.get_attr("kernel"), op.get_attr("stride"), _pad(op)
        if cpu_ops.attr(op, "global", False):
            _, height, width, _ = op.get_input_tensor("input").dims
            kernel, stride, pad = [width, height], [1, 1], [0, 0, 0, 0]
        if op.get_type() == "maxpool2d":
            if fix_ops.fix_point(source) != sink.fix_point:
                raise _Refusal("a max pool that changes the fix point")
            return self.model.max_pool(op.get_name(), source, kernel, stride, pad)
        return self.model.avg_pool(op.get_name(), source, kernel, stride, sink.fix_point, pad)

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
        dims = {tuple(tensor.dims) for tensor in op.get_input_tensors_by_name("input")}
        if len(dims) != 1:
            raise _Refusal("its operands have different shapes")
        sources = [self._int(source) for source in op.get_input_ops_by_name("input")]
        if op.get_type() == "mul":
            return self.model.multiply(op.get_name(), sources, sink.fix_point)
        return self.model.add(op.get_name(), sources, sink.fix_point, sink.nonlinear)

    def _move(self, op: Op, sink: _Sink) -> Op:
        source = self._int(op.get_input_op("input"))
        if fix_ops.fix_point(source) != sink.fix_point:
            raise _Refusal("it changes the fix point")
        shape = op.get_output_tensor().dims
        if op.get_type() in ("reshape", "flatten", "squeeze"):
            return self.model.reshape(op.get_name(), source, shape)
        if op.get_type() == "reduction_max":
            return self._reduction(op, source)
        return self.model.move(op.get_name(), f"{op.get_type()}-fix", source, op.get_attrs())

    def _reduction(self, op: Op, source: Op) -> Op:
        """The largest value along rows or columns is a max pool, as AMD's compiler makes it."""
        _, height, width, _ = source.get_output_tensor().dims
        axes = {axis % 4 for axis in op.get_attr("axis")}
        if not axes <= {1, 2} or not cpu_ops.attr(op, "keep_dims", False):
            raise _Refusal("a reduction that is no pool")
        kernel = [width if 2 in axes else 1, height if 1 in axes else 1]
        if max(kernel) > MAX_POOL:
            raise _Refusal(f"a reduction over {kernel[0]}x{kernel[1]}, the DPU has 1 to {MAX_POOL}")
        return self.model.max_pool(op.get_name(), source, kernel, [1, 1])


_EMITTERS: dict[str, Callable[[_Compiler, Op, _Sink], Op]] = {
    **dict.fromkeys(_CONVOLUTIONS, _Compiler._convolution),
    **dict.fromkeys(_POOLS, _Compiler._pool),
    **dict.fromkeys(_JOINS, _Compiler._join),
    **dict.fromkeys(_MOVES, _Compiler._move),
    "concat": _Compiler._concat,
}


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


def _fuses(op: Op) -> bool:
    """Whether the op is an activation that a convolution of the DPU has."""
    if op.get_type() == "leaky-relu":
        return is_leaky_slope(op.get_attr("alpha"))
    return op.get_type() in _ACTIVATIONS


def _pad(op: Op) -> list[int]:
    pad = cpu_ops.attr(op, "pad", [0, 0, 0, 0])
    if cpu_ops.attr(op, "pad_mode", "FLOOR") != "FLOOR":
        raise _Refusal(f"pad_mode {op.get_attr('pad_mode')!r}")
    return list(pad)
