"""Program of an engine: the ops of a graph in order, with constants already computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, XmodelError, unknown_op
from tutelage.core.fingerprint import refuse_foreign
from tutelage.core.fixed_point import Array, quantise_int8
from tutelage.dpu.ops.data import constant
from tutelage.dpu.ops.reference import Plugin, plugin_for, run_op
from tutelage.dpu.ops.registry import reference, type_of
from tutelage.dpu.ops.xir import infer_dims
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.subgraph import Subgraph


@dataclass
class Program:
    """Ops to run, their inputs and their constants.

    Attributes
    ----------
    steps : ops in topological order, without constants and inputs
    inputs : ops whose values the caller provides, in a fixed order
    outputs : ops whose values are requested
    constants : values of ops that depend on no input, by op name
    plugins : user functions by op type
    """

    steps: list[Op]
    inputs: list[Op]
    outputs: list[Op]
    constants: dict[str, Array]
    plugins: dict[str, Plugin] = field(default_factory=dict)

    def run_step(self, op: Op, values: dict[str, Array]) -> Array:
        """Compute one op by its reference function or plugin, image by image if necessary."""
        arguments = {
            name: [values[source.get_name()] for source in sources]
            for name, sources in op.get_input_ops().items()
        }
        if self.keeps_batch(op):
            return self._call(op, arguments)
        moving = {s.get_name() for s in self._moving_sources(op)}
        batch = max((len(np.atleast_1d(values[name])) for name in moving), default=1)
        if batch == 1:
            return self._call(op, arguments)
        parts = []
        for index in range(batch):
            one = {
                arg: [
                    array[index : index + 1] if source.get_name() in moving else array
                    for source, array in zip(op.get_input_ops()[arg], arrays, strict=True)
                ]
                for arg, arrays in arguments.items()
            }
            parts.append(self._call(op, one))
        return np.concatenate(parts)

    def _moving_sources(self, op: Op) -> list[Op]:
        every = (s for ops in op.get_input_ops().values() for s in ops)
        return [s for s in every if s.get_name() not in self.constants]

    def _call(self, op: Op, arguments: dict[str, list[Array]]) -> Array:
        kind = op.get_type()
        try:
            result = run_op(op, arguments, self.plugins)
        except (KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
            what = f"op {op.get_name()!r} ({kind}) cannot be computed"
            raise XmodelError(f"{what}: {type(error).__name__}: {error}") from error
        dims = op.get_output_tensor().dims
        if list(result.shape[1:]) != dims[1:]:
            what = f"has shape {list(result.shape)}, but the file says {dims}"
            raise XmodelError(f"op {op.get_name()!r} ({kind}) {what}")
        return result

    def keeps_batch(self, op: Op) -> bool:
        """Return whether the op treats the images of a batch independently."""
        if op.get_type() in self.plugins or not op.get_output_tensor().dims:
            return False
        moving = self._moving_sources(op)
        if len({s.get_output_tensor().ndim for s in moving}) > 1:
            return False  # numpy aligns the last axes, so batches would be combined with other axes
        return type_of(op).keeps_batch(op, moving)

    def check_feeds(self, feeds: dict[str, Array]) -> int:
        """Verify every shape of `feeds` (op name -> array) and return the batch size.

        Raises
        ------
        DpuError
            An input is missing or has the wrong shape, or batch sizes differ.
        """
        sizes = set()
        for op in self.inputs:
            dims = op.get_output_tensor().dims
            if op.get_name() not in feeds:
                raise DpuError(f"no value for input {op.get_name()!r} of shape {dims}")
            shape = list(feeds[op.get_name()].shape)
            if shape[1:] != dims[1:] or len(shape) != len(dims) or not shape[0]:
                raise DpuError(f"input {op.get_name()!r} has shape {shape}, expected {dims}")
            sizes.add(shape[0] // dims[0] if shape[0] % dims[0] == 0 else -1)
        if len(sizes) > 1 or -1 in sizes:
            raise DpuError("the inputs' batch sizes do not match each other or the model")
        return sizes.pop() if sizes else 1

    @property
    def takes_batches(self) -> bool:
        """Whether every tensor that depends on an input has the batch as its first axis."""
        ops = [*self.steps, *self.inputs]
        return all(op.get_output_tensor().dims[:1] == [1] for op in ops)


def build_program(
    graph: Graph,
    subgraph: Subgraph | None = None,
    plugins: dict[str, Plugin] | None = None,
    outputs: list[Op] | None = None,
) -> Program:
    """Return the program of a whole graph, of one subgraph, or of the ops that `outputs` need.

    Raises
    ------
    UnknownOpError
        An op is neither built in nor in `plugins`.
    UnsupportedError
        The graph is compiled for a DPU other than a DPUCZDX8G.
    DpuError
        Constants do not match their shapes.
    """
    refuse_foreign(graph)
    if subgraph is None:
        ops = graph.toposort()
        outputs = outputs or graph_outputs(graph)
    else:
        ops = subgraph.toposort()
        outputs = [tensor.producer for tensor in subgraph.ordered_output_tensors()]
    found = {op.get_type(): plugin_for(op.get_type(), plugins or {}) for op in ops}
    plugins = {kind: plugin for kind, plugin in found.items() if plugin is not None}
    needed = _needed(outputs, {op.get_name() for op in ops})
    program = Program([], [], outputs, {}, plugins)
    if subgraph is not None:
        program.inputs = [tensor.producer for tensor in subgraph.ordered_input_tensors()]
        program.inputs = [op for op in program.inputs if type_of(op).source != "constant"]
    for op in (op for op in ops if op.get_name() in needed):
        _place(program, graph, op)
    return program


def _place(program: Program, graph: Graph, op: Op) -> None:
    """Add an op to the inputs, the constants or the steps."""
    name, kind = op.get_name(), op.get_type()
    source = type_of(op).source
    if source == "input":
        program.inputs.append(op)  # inputs from outside a subgraph are not ops of it
        return
    if source == "constant":
        program.constants[name] = constant(graph, op)
        return
    if reference(kind) is None and kind not in program.plugins:
        raise unknown_op(op)
    sources = [s.get_name() for ops in op.get_input_ops().values() for s in ops]
    if all(source in program.constants for source in sources):
        program.constants[name] = program._call(op, {
            arg: [program.constants[s.get_name()] for s in ops]
            for arg, ops in op.get_input_ops().items()
        })  # fmt: skip
    else:
        _check_dims(program, op)
        program.keeps_batch(op)  # reads its axes, so that invalid ones raise here
        program.steps.append(op)


def _check_dims(program: Program, op: Op) -> None:
    """Raise XmodelError if an op's tensor differs from the dims inferred from its inputs."""
    if op.get_type() in program.plugins:
        return
    dims, declared = infer_dims(op), op.get_output_tensor().dims
    if dims != declared:
        kind = op.get_type()
        what = f"has shape {dims}, but the file says {declared}"
        raise XmodelError(f"op {op.get_name()!r} ({kind}) {what}")


def graph_outputs(graph: Graph) -> list[Op]:
    """Return the output ops of a graph, in the order of the attribute `return_ops`.

    A compiled file still has the names of the quantised file's `return_ops`. If such an op
    is gone, the last op derived from it has its name with a suffix (found in
    PointPillars, whose "..._fix" ends in the fix2float "..._fix_").
    """
    tails = [op for op in graph.toposort() if not op.get_fanout_num()]
    names = graph.get_attr("return_ops") if graph.has_attr("return_ops") else []
    present = {op.get_name(): op for op in graph.get_ops()}
    if names and all(name in present for name in names):
        return [present[name] for name in names]
    if len(tails) * len(names) > _MAX_PAIRS:
        return tails

    def place(op: Op) -> int:
        return next((i for i, n in enumerate(names) if op.get_name().startswith(n)), len(names))

    return sorted(tails, key=place)


_MAX_PAIRS = 1 << 20
"""Most pairs of an output and a name of `return_ops` to compare; no known model has so many."""


def _needed(outputs: list[Op], allowed: set[str]) -> set[str]:
    """Return the names of the ops in `allowed` that `outputs` depend on."""
    found: set[str] = set()
    stack = list(outputs)
    while stack:
        op = stack.pop()
        if op.get_name() in found or op.get_name() not in allowed:
            continue
        found.add(op.get_name())
        stack += [s for ops in op.get_input_ops().values() for s in ops]
    return found


def feed(op: Op, array: Any) -> Array:
    """Return an input array in the op's element type; float32 is quantised if necessary."""
    tensor, array = op.get_output_tensor(), np.asarray(array)
    if tensor.is_int8:
        if array.dtype == np.int8:
            return array
        with np.errstate(over="ignore"):  # infinity saturates like any other large value
            return quantise_int8(np.asarray(array, np.float32), tensor.get_attr("fix_point"))
    return np.asarray(array, np.float32)
