"""The emulator's compiler, from a quantised .xmodel to the compiled form that the emulation runs.

    graph = compile_graph(Graph.deserialize("quantised.xmodel"))
    graph.serialize("model.xmodel")

It does what AMD's compiler does before generating instructions: an op, its ReLU and the following
`fix` become one int8 op; parameters become int8 in REG_0; the inputs of a concat take its fix
point; ops that the DPU cannot compute stay in float32 on the CPU; consecutive ops of one device
become subgraphs, with upload, download, fix2float and float2fix between them. Names are those of
AMD's compiled files (measured on PointPillars). There are no instructions: `dpu_name` is that of
the emulator, and a board rejects the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tutelage.core.errors import UnsupportedError, contradictions
from tutelage.core.fixed_point import Array
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.partition import constant_ops
from tutelage.dpu.engine.program import graph_outputs
from tutelage.dpu.ops.compiling import Sink
from tutelage.dpu.ops.factors import needs_factor, scale_of
from tutelage.dpu.ops.fix import (
    QUANTISED,
    is_dpu_fix,
    is_fix,
    is_int8_fix,
    rounded_constant,
    rounds_to,
)
from tutelage.dpu.ops.int8 import fix_point
from tutelage.dpu.ops.refusal import Refusal
from tutelage.dpu.ops.registry import activation_of, is_int8, type_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op


def compile_graph(graph: Graph) -> Graph:
    """Return the compiled form of a quantised graph.

    Raises
    ------
    UnsupportedError
        The graph is already compiled.
    XmodelError
        The graph is inconsistent.
    """
    return fuse(graph).graph


@dataclass(frozen=True)
class Fused:
    """A graph in compiled form, without code.

    Attributes
    ----------
    graph : graph of int8 ops in subgraphs by device
    sources : the quantised op that each DPU op was created from, by name
    reasons : why quantised ops are on the CPU, by name
    """

    graph: Graph
    sources: dict[str, str]
    reasons: dict[str, str]


def fuse(graph: Graph, refused: Mapping[str, str] | None = None) -> Fused:
    """Convert a quantised graph's ops to int8 and assign them to the DPU and the CPU.

    Parameters
    ----------
    refused : quantised ops that must not run on the DPU, by name, with the reason

    Raises
    ------
    UnsupportedError, XmodelError
        As for `compile_graph`.
    """
    if graph.get_root_subgraph().get_children_num():
        raise UnsupportedError(f"{graph.get_name()}: already compiled; give the quantised file")
    with contradictions(graph.get_name()):
        compiler = _Compiler(graph, refused)
        return Fused(compiler.compile(), compiler.sources, compiler.reasons)


def on_cpu(graph: Graph) -> dict[str, str]:
    """Return the ops of a quantised graph that stay on the CPU, by name, with the reasons."""
    with contradictions(graph.get_name()):
        compiler = _Compiler(graph)
        compiler.place()
        return compiler.reasons


class _Compiler:
    """State of one compilation.

    Attributes
    ----------
    outputs : output ops of the graph, in order
    parameters : ops that depend on no input
    ints : the int8 op with a quantised op's value, by the quantised op's name
    floats : the float32 op with its value, likewise
    sources : the quantised op that an int8 op was created from, by name
    reasons : why an op is on the CPU
    """

    def __init__(self, graph: Graph, refused: Mapping[str, str] | None = None) -> None:
        self._refused = refused or {}
        self.sources: dict[str, str] = {}
        self.graph = graph
        self.model = CompiledModel(graph.get_name())
        self.outputs = dict.fromkeys(graph_outputs(graph))
        self.parameters = constant_ops(graph)
        self.ints: dict[str, Op] = {}
        self.floats: dict[str, Op] = {}
        self.reasons: dict[str, str] = {}
        self._moved: dict[tuple[str, str], Op] = {}  # uploads, downloads and conversions
        self._sinks: dict[str, Sink | None] = {}

    def place(self) -> None:
        """Assign every op to its device."""
        for op in self.graph.toposort():
            if op.get_name() not in self.ints and op not in self.parameters:
                self._add(op)

    def compile(self) -> Graph:
        """Return the whole compiled graph."""
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
            if not op.get_fanout_num() and op not in outputs and type_of(op).source != "input":
                graph.remove_op(op)

    # -- one op ---------------------------------------------------------------------------

    def _add(self, op: Op) -> None:
        """Assign one op to a device."""
        if type_of(op).source == "input" and not is_int8(op.get_type()):
            self._add_input(op)
            return
        if is_fix(op):
            self._add_fix(op)
            return
        try:
            self._add_on_dpu(op)
        except Refusal as reason:
            self.reasons[op.get_name()] = str(reason)
            self._copy(op)

    def _add_input(self, op: Op) -> None:
        """Add an input: int8 if all readers round it alike, as in AMD's compiler, else float32."""
        fixes = op.get_fanout_ops()
        dims = op.get_output_tensor().dims
        same = {int(f.get_attr("fix_point")) for f in fixes if is_dpu_fix(f)}
        if len(same) == 1 and all(is_dpu_fix(f) for f in fixes) and op not in self.outputs:
            data = self.model.data(op.get_name(), dims, same.pop())
            self._rename(data, fixes[0].get_name())
            self.ints |= {fix.get_name(): data for fix in fixes}
            return
        self.floats[op.get_name()] = self.model.graph.clone_op(op, {})
        self.floats[op.get_name()].set_attr("device", "USER")

    def _add_fix(self, op: Op) -> None:
        """Add a fix that is not fused into a preceding op, such as one after a CPU op."""
        source = op.get_input_op("input")
        held = self.ints.get(source.get_name())
        if held is not None and rounds_to(op, fix_point(held)):
            self.ints[op.get_name()] = held  # already rounded in the same way
        else:
            self._copy(op)

    def _copy(self, op: Op) -> None:
        """Copy the op unchanged to the CPU, in float32."""
        inputs = {
            arg: [self._float(s) for s in sources] for arg, sources in op.get_input_ops().items()
        }
        self.floats[op.get_name()] = self._cpu(op, inputs)

    def _parameter(self, op: Op) -> Op:
        """Return the copy on the CPU of an op that depends on no input."""
        if op.get_name() not in self.floats:
            inputs = {arg: [self._parameter(s) for s in sources]
                      for arg, sources in op.get_input_ops().items()}  # fmt: skip
            self.floats[op.get_name()] = self._cpu(op, inputs)
        return self.floats[op.get_name()]

    def _cpu(self, op: Op, inputs: dict[str, list[Op]]) -> Op:
        """Return a copy of `op`, which may have an unknown type, on the CPU."""
        copied = self.model.graph.clone_op(op, inputs)
        copied.set_attr("device", "CPU")
        return copied

    # -- the DPU ---------------------------------------------------------------------------

    def _add_on_dpu(self, op: Op) -> None:
        kind = type_of(op)
        if op.get_name() in self._refused:
            raise Refusal(self._refused[op.get_name()])
        if not kind.on_dpu or is_int8(op.get_type()):
            raise Refusal(f"the DPU has no {op.get_type()}")
        sink = self._sink(op)
        if sink is None:
            raise Refusal(self._why_no_sink(op))
        limit = kind.limit(op)
        if limit:
            raise Refusal(limit)
        if op.get_input_num("input") != len(self.computed(op)) and not kind.takes_constants:
            raise Refusal("an operand is constant")
        for source in self.computed(op):
            if self.point(source) is None:
                raise Refusal(f"input {source.get_name()!r} is not rounded by a fix")
        made = kind.compile(op, sink, self)
        self.sources[made.get_name()] = op.get_name()
        self._rename(made, sink.tensor)
        ends = [op, *([sink.fused] if sink.fused else [])]
        self.ints |= {end.get_name(): made for end in ends}
        for reader in ends[-1].get_fanout_ops():
            if rounds_to(reader, sink.fix_point):
                self.ints[reader.get_name()] = made

    def computed(self, op: Op) -> list[Op]:
        """Return the non-constant inputs."""
        return [s for s in op.get_input_ops_by_name("input") if s not in self.parameters]

    def _sink(self, op: Op) -> Sink | None:
        """Return where the op's result is rounded, or None if it stays a real number."""
        if op.get_name() not in self._sinks:
            self._sinks[op.get_name()] = self._find_sink(op)
        return self._sinks[op.get_name()]

    def _find_sink(self, op: Op) -> Sink | None:
        readers, fused = op.get_fanout_ops(), self._fused(op)
        if fused is not None:
            readers = fused.get_fanout_ops()
        elif type_of(op).scaled and needs_factor(op):
            return None
        last = fused or op
        readers = [] if last in self.outputs else readers  # an output is not rounded by its readers
        fixes = [reader for reader in readers if is_dpu_fix(reader)]
        points = {int(fix.get_attr("fix_point")) for fix in fixes}
        if fixes and len(fixes) == len(readers) and len(points) == 1:
            return Sink(points.pop(), fixes[0].get_name(), fused)
        if readers and all(type_of(reader).joins for reader in readers):
            sinks = [self._sink(reader) for reader in readers]
            points = {sink.fix_point for sink in sinks if sink is not None}
            if len(points) == 1 and None not in sinks:
                return Sink(points.pop(), f"{last.get_name()}_inserted_fix_0", fused)
        if type_of(op).keeps_integers(op) and not fused:
            grids = {self.point(source) for source in self.computed(op)}
            point = grids.pop()
            if not grids and point is not None:
                return Sink(point, op.get_name())
        return None

    def _fused(self, op: Op) -> Op | None:
        """Return the op that the DPU fuses into `op`: its activation, or the factor after it."""
        if op in self.outputs:
            return None
        if type_of(op).scaled:
            return scale_of(op)
        readers, fuses = op.get_fanout_ops(), type_of(op).fuses
        fits = fuses and len(readers) == 1 and activation_of(readers[0]) in fuses
        return readers[0] if fits else None

    def _why_no_sink(self, op: Op) -> str:
        readers = [type_of(reader) for reader in op.get_fanout_ops()]
        if len(readers) == 1 and readers[0].nonlinear and type_of(op).fuses:
            return f"the DPU cannot fuse this {readers[0].name} into {op.get_type()}"
        if type_of(op).scaled:
            return f"the DPU's {op.get_type()} has a factor, which is missing in the file"
        return "the result is not rounded by a fix"

    def point(self, op: Op) -> int | None:
        """Return the fix point of an op's value if it is int8 * 2^-fix_point, else None."""
        if op.get_name() in self.ints:
            return fix_point(self.ints[op.get_name()])
        if is_dpu_fix(op):
            return int(op.get_attr("fix_point"))
        if type_of(op).keeps_integers(op) and op.get_input_num("input") == 1:
            return self.point(op.get_input_op("input"))
        return None

    def int8(self, op: Op) -> Op:
        """Return an op's value as int8 on the DPU."""
        name = op.get_name()
        if name in self.ints:
            held = self.ints[name]
            if held.get_attr("device") == "DPU":
                return held
            return self._uploaded(held)
        held = self.floats[name]
        point = self.point(op)
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
        """Return an op's value as float32 on the CPU."""
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
        """Add a copy, which takes over the tensor's name, as in AMD's compiler."""
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

    def integers(self, fix: Op, what: str) -> tuple[Array, int]:
        """Return a parameter's int8 values and its fix point."""
        if not is_int8_fix(fix) or type_of(fix.get_input_op("input")).source != "constant":
            raise Refusal(f"the {what} are not a rounded constant")
        return rounded_constant(self.graph, fix)
