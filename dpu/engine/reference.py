"""The engines by name, and whole models with one of them.

`fast` computes float32 graphs that carry integers, `reference` integers in plain numpy, and
`instructions` executes the DPU's own code.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from tutelage.core.errors import DpuError, UnsupportedError, contradictions
from tutelage.core.fixed_point import Array, dequantise
from tutelage.core.text import counted
from tutelage.dpu.engine.program import Program, build_program, feed
from tutelage.dpu.ops.reference import Plugin
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.tensor import Tensor

ENGINES = ("fast", "reference", "instructions")


class Engine(Protocol):
    """Computes a program."""

    program: Program

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Values of the ops named in `keep`, from the inputs by op name."""
        ...


class ReferenceEngine:
    """Op after op by the reference functions of dpu/ops."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Values of the ops named in `keep`; a value is dropped after its last reader."""
        values = {**self.program.constants, **feeds}
        last = {s: op for op in self.program.steps for s in _source_names(op)}
        for op in self.program.steps:
            values[op.get_name()] = self.program.run_step(op, values)
            for source in set(_source_names(op)):
                if last[source] is op and source not in keep:
                    del values[source]
        return {name: values[name] for name in keep}


def _source_names(op: Op) -> list[str]:
    return [s.get_name() for ops in op.get_input_ops().values() for s in ops]


def make_engine(
    program: Program,
    engine: str = "fast",
    threads: int = 0,
    trace: bool = False,
    order: int | None = None,
    brief: bool = False,
) -> Engine:
    """Make an engine for `program`.

    Parameters
    ----------
    threads : of the fast engine; 0 takes all cores
    trace : keep every tensor
    order : seed of the order of instructions; None for that of the code
    brief : little is to be computed, so that the start counts more than the fast engine's speed

    Raises
    ------
    DpuError
        There is none of that name, or it cannot compute the program.
    """
    if engine == "reference":
        return ReferenceEngine(program)
    if engine == "fast":
        from tutelage.dpu.engine.fast import FastEngine

        return FastEngine(program, threads, trace, brief)
    if engine == "instructions":
        from tutelage.dpu.engine.instructions import InstructionEngine

        return InstructionEngine(program, order)
    raise DpuError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")


class Model:
    """A whole .xmodel with an engine: arrays in, arrays out.

    Attributes
    ----------
    graph : the file's graph
    program : what is run
    """

    def __init__(self, graph: Graph, program: Program, engine: Engine) -> None:
        self.graph, self.program, self.engine = graph, program, engine

    def run(self, *inputs: Any) -> Array:
        """The graph's first output as float32, (N, ...).

        Parameters
        ----------
        inputs : one array (N, H, W, C) per graph input, int8 or float32;
            float32 is quantised by the input's fix point

        Raises
        ------
        DpuError
            Number or shapes of the inputs do not fit.
        """
        return self.run_all(*inputs)[self.program.outputs[0].get_name()]

    def run_all(self, *inputs: Any) -> dict[str, Array]:
        """All outputs as float32, by op name, in the graph's order."""
        tensors = {op.get_name(): op.get_output_tensor() for op in self.program.outputs}
        found = self.trace(*inputs, keep=set(tensors))
        return {name: as_float(found[name], tensor) for name, tensor in tensors.items()}

    def trace(self, *inputs: Any, keep: set[str] | None = None) -> dict[str, Array]:
        """The value of every computed tensor (or of the ops in `keep`), by op name."""
        if len(inputs) != len(self.program.inputs):
            names = [op.get_name() for op in self.program.inputs]
            raise DpuError(
                f"the model has {counted(len(names), 'input')} ({names}), {len(inputs)} were given"
            )
        pairs = zip(self.program.inputs, inputs, strict=True)
        feeds = {op.get_name(): feed(op, array) for op, array in pairs}
        keep = keep or {op.get_name() for op in self.program.steps}
        return compute_batches(self.engine, feeds, keep)


def compute_batches(engine: Engine, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
    """As `Engine.compute`, for any batch size; image by image where the graph mixes images.

    Raises
    ------
    DpuError
        An input is missing, has the wrong shape, or batch sizes differ; or several images are
        given, and a value to keep is a scalar.
    """
    batch = engine.program.check_feeds(feeds)
    if batch == 1 or engine.program.takes_batches:
        return engine.compute(feeds, keep)
    for op in engine.program.steps:
        if op.get_name() in keep and not op.get_output_tensor().dims:
            raise UnsupportedError(
                f"op {op.get_name()!r} gives a scalar, for one image at a time; {batch} were given"
            )
    sizes = {name: len(array) // batch for name, array in feeds.items()}
    parts = [
        engine.compute({n: a[i * sizes[n] : (i + 1) * sizes[n]] for n, a in feeds.items()}, keep)
        for i in range(batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in keep}


def as_float(value: Array, tensor: Tensor) -> Array:
    """A tensor's value as float32: int8 by its fix point, the rest as it is."""
    if value.dtype == np.int8:
        return dequantise(value, tensor.get_attr("fix_point"))
    return value.astype(np.float32)


def load_engine(
    path: str | os.PathLike[str] | Graph,
    engine: str = "fast",
    plugins: dict[str, Plugin] | None = None,
    threads: int = 0,
    trace: bool = False,
    name: str = "",
    order: int | None = None,
    brief: bool = False,
) -> Model:
    """Read an .xmodel and make it ready to run, CPU ops included.

    Parameters
    ----------
    name : what errors call a graph that was read already; by default its own name
    order, brief : as of `make_engine`

    Raises
    ------
    XmodelError, UnknownOpError, UnsupportedError
        The file is bad, or has an op that nobody implements.
    """
    graph = path if isinstance(path, Graph) else Graph.deserialize(path)
    own_name = graph.get_name() if isinstance(path, Graph) else str(path)
    with contradictions(name or own_name):
        program = build_program(graph, plugins=plugins)
        return Model(graph, program, make_engine(program, engine, threads, trace, order, brief))
