"""Engines by name, and whole models with an engine.

`fast` computes integers exactly in float32 graphs, `reference` in plain numpy, and
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
    """Interface of an engine, which computes a program."""

    program: Program

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Return the values of the ops named in `keep`, given the inputs by op name."""
        ...


class ReferenceEngine:
    """Engine that computes op by op, with the reference functions of dpu/ops."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Return the values of the ops named in `keep`, freeing others after their last reader."""
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
    threads : threads of the fast engine; 0 for all cores
    trace : keep every tensor
    order : seed of the instruction order; None for the order of the code
    brief : optimise the fast engine for start-up time, because little will be computed

    Raises
    ------
    DpuError
        There is no engine of that name, or it cannot compute the program.
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
    """A whole .xmodel with an engine, from input arrays to output arrays.

    Attributes
    ----------
    graph : the file's graph
    program : program of the graph
    """

    def __init__(self, graph: Graph, program: Program, engine: Engine) -> None:
        self.graph, self.program, self.engine = graph, program, engine

    def run(self, *inputs: Any) -> Array:
        """Return the graph's first output as float32, (N, ...).

        Parameters
        ----------
        inputs : one array (N, H, W, C) per graph input, int8 or float32;
            float32 is quantised by the input's fix point

        Raises
        ------
        DpuError
            The number or the shapes of the inputs do not match the model.
        """
        return self.run_all(*inputs)[self.program.outputs[0].get_name()]

    def run_all(self, *inputs: Any) -> dict[str, Array]:
        """Return all outputs as float32, by op name, in the graph's order; see `run`."""
        tensors = {op.get_name(): op.get_output_tensor() for op in self.program.outputs}
        found = self.trace(*inputs, keep=set(tensors))
        return {name: as_float(found[name], tensor) for name, tensor in tensors.items()}

    def trace(self, *inputs: Any, keep: set[str] | None = None) -> dict[str, Array]:
        """Return the value of every computed tensor (or of the ops in `keep`), by op name."""
        if len(inputs) != len(self.program.inputs):
            names = [op.get_name() for op in self.program.inputs]
            given, count = counted(len(inputs), "array"), counted(len(names), "input")
            raise DpuError(f"{given} for a model with {count} ({names})")
        pairs = zip(self.program.inputs, inputs, strict=True)
        feeds = {op.get_name(): feed(op, array) for op, array in pairs}
        keep = keep or {op.get_name() for op in self.program.steps}
        return compute_batches(self.engine, feeds, keep)


def compute_batches(engine: Engine, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
    """Compute as `Engine.compute`, for any batch size; image by image if the graph mixes images.

    Raises
    ------
    DpuError
        An input is missing or has the wrong shape, batch sizes differ, or a value to keep is a
        scalar although several images are given.
    """
    batch = engine.program.check_feeds(feeds)
    if batch == 1 or engine.program.takes_batches:
        return engine.compute(feeds, keep)
    for op in engine.program.steps:
        if op.get_name() in keep and not op.get_output_tensor().dims:
            raise UnsupportedError(
                f"op {op.get_name()!r} gives a scalar, which needs one image at a time, not {batch}"
            )
    sizes = {name: len(array) // batch for name, array in feeds.items()}
    parts = [
        engine.compute({n: a[i * sizes[n] : (i + 1) * sizes[n]] for n, a in feeds.items()}, keep)
        for i in range(batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in keep}


def as_float(value: Array, tensor: Tensor) -> Array:
    """Return a tensor's value as float32; int8 is scaled by its fix point."""
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
    """Read an .xmodel and prepare it for execution, CPU ops included.

    Parameters
    ----------
    name : name of an already read graph in errors; defaults to its own name
    order, brief : as for `make_engine`

    Raises
    ------
    XmodelError, UnknownOpError, UnsupportedError
        The file is invalid, or has an op that is not implemented.
    """
    graph = path if isinstance(path, Graph) else Graph.deserialize(path)
    own_name = graph.get_name() if isinstance(path, Graph) else str(path)
    with contradictions(name or own_name):
        program = build_program(graph, plugins=plugins)
        return Model(graph, program, make_engine(program, engine, threads, trace, order, brief))
