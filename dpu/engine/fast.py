"""The fast engine: stages of exact ops as float32 ONNX graphs, the rest by reference functions.

Ops whose sums are proven to stay exact in float32 (dpu/engine/onnx_lowering.py) are collected
into graphs that OpenVINO or ONNX Runtime runs; the others (plugins, softmax, ...)
use the same numpy functions as the reference engine, so that both engines agree
there by construction.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field

from tutelage.core.fixed_point import Array
from tutelage.dpu.engine.onnx_lowering import Lowering, analyse
from tutelage.dpu.engine.program import Program
from tutelage.dpu.engine.runtimes import OpenVinoRuntime, Runtime, make_runtime
from tutelage.dpu.engine.upgrade import UpgradedRuntime, wanted
from tutelage.dpu.ops.lowering import Grid
from tutelage.dpu.xmodel.op import Op

HAS_INT8 = platform.machine() in ("x86_64", "AMD64")
"""Whether the int8 form has been tested on this kind of processor."""


@dataclass
class Stage:
    """Ops that run together.

    `runtime` is None for a stage of reference functions.
    """

    lowered: bool
    steps: list[Op] = field(default_factory=list)
    reads: list[Op] = field(default_factory=list)
    writes: list[Op] = field(default_factory=list)
    runtime: Runtime | None = None


class FastEngine:
    """Engine that runs a program in stages.

    Parameters
    ----------
    program : the program to run
    threads : threads of one run; 0 for all cores
    trace : keep every tensor, so that `compute` can return any; slower
    brief : optimise for start-up time, because little will be computed
    """

    def __init__(
        self, program: Program, threads: int = 0, trace: bool = False, brief: bool = False
    ) -> None:
        self.program = program
        self.threads = threads or len(os.sched_getaffinity(0))
        grids = analyse(program, trace)
        self.stages = _stages(program, grids, trace)
        self.wide_ops: list[str] = []
        for stage in self.stages:
            if stage.lowered:
                lowering = Lowering(program, grids, stage.steps, stage.reads, stage.writes)
                self.wide_ops += lowering.wide_ops
                wide = bool(lowering.wide_ops)
                runtime = make_runtime(lowering.model(), self.threads, wide, brief)
                stage.runtime = runtime if trace else self._upgraded(stage, grids, runtime)

    def _upgraded(self, stage: Stage, grids: dict[str, Grid], runtime: Runtime) -> Runtime:
        """Return the stage's runtime, upgraded to its int8 form if OpenVINO supports it."""
        when = wanted()
        if when == "0" or not isinstance(runtime, OpenVinoRuntime) or not HAS_INT8:
            return runtime

        def upgrade() -> tuple[Runtime, list[Array]] | None:
            from tutelage.dpu.engine.int8_form import checked_form

            parts = stage.steps, stage.reads, stage.writes
            return checked_form(self.program, grids, parts, self.threads)

        return UpgradedRuntime(runtime, upgrade, len(stage.steps), when == "1")

    def compute(self, feeds: dict[str, Array], keep: set[str]) -> dict[str, Array]:
        """Return the values of the ops named in `keep`, by name."""
        values: dict[str, Array] = {**self.program.constants, **feeds}
        for stage in self.stages:
            if stage.runtime is None:
                for op in stage.steps:
                    values[op.get_name()] = self.program.run_step(op, values)
                continue
            arrays = stage.runtime.run([values[op.get_name()] for op in stage.reads])
            for op, array in zip(stage.writes, arrays, strict=True):
                values[op.get_name()] = array
        return {name: values[name] for name in keep if name in values}


def _stages(program: Program, grids: dict[str, Grid], trace: bool) -> list[Stage]:
    """Split the steps into alternating stages; the stage of an op follows those of its inputs."""
    lowered = {op.get_name(): op.get_name() in grids for op in program.steps}
    level: dict[str, int] = {}
    stages: dict[int, Stage] = {}
    for op in program.steps:
        mine = lowered[op.get_name()]
        number = 0 if mine else 1
        for sources in op.get_input_ops().values():
            for source in sources:
                name = source.get_name()
                if name in level:
                    number = max(number, level[name] + (lowered[name] != mine))
        level[op.get_name()] = number
        stages.setdefault(number, Stage(mine)).steps.append(op)
    _connect(program, stages, level, trace)
    return [stages[number] for number in sorted(stages)]


def _connect(
    program: Program, stages: dict[int, Stage], level: dict[str, int], trace: bool
) -> None:
    """Set the ops that each stage reads from and writes for the others."""
    asked = {op.get_name() for op in program.outputs}
    for number, stage in stages.items():
        for op in stage.steps:
            for source in (s for ops in op.get_input_ops().values() for s in ops):
                name = source.get_name()
                outside = name not in program.constants and level.get(name) != number
                if outside and source not in stage.reads:
                    stage.reads.append(source)
            leaves = any(level.get(r.get_name()) not in (number, None) for r in op.get_fanout_ops())
            if trace or leaves or op.get_name() in asked:
                stage.writes.append(op)
