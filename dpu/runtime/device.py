"""The emulated device behind `dpu/runtime/vart.py`: its cores, their jobs, and their pace.

A core is a thread that takes jobs one after the other; whoever submits a job waits for it at once,
as on an edge board, or later, with `TUTELAGE_EXECUTION=asynchronous`. The user's threads never
compute by themselves: what native libraries keep for a thread would not survive its fork. Two
moments need care, as a core may be inside native code then:

- the interpreter's end: a thread that comes back from native code into an interpreter that is gone
  takes the process down with it. So what computes is let end first, and nothing else is begun;
- a fork: the child has none of the parent's cores. It gets a device of its own, and runners that
  it has from the parent are made ready again at their first use there.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import math
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import device_of
from tutelage.core.fixed_point import Array
from tutelage.dpu.engine.program import build_program
from tutelage.dpu.engine.reference import Engine, as_float, compute_batches, make_engine
from tutelage.dpu.ops.reference import Plugin
from tutelage.dpu.runtime import xir

DPU_CORES = 2
"""Cores of the DPU in AMD's ZCU104 image (PG338's B4096 twice; DPU-PYNQ's overlay too)."""

ENGINE_VARIABLE = "TUTELAGE_ENGINE"
"""Environment variable with the engine that runners use, by its name in `reference.ENGINES`."""

EXECUTION_VARIABLE = "TUTELAGE_EXECUTION"
"""Environment variable: "synchronous" (default) or "asynchronous", for runners created later."""

KINDS = ("DPU", "CPU")
"""Devices of subgraphs that runners are made for."""

Pace = Callable[[xir.Subgraph], float]
"""Seconds that one job of a DPU subgraph takes, with the batch of the subgraph's tensors."""


class Tally:
    """How well the emulation kept one pace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.jobs = self.late = 0
        self.late_seconds_max = 0.0

    def add(self, late_seconds: float) -> None:
        """Count a job that ended so much later than its pace; 0 or less is in time."""
        with self._lock:
            self.jobs += 1
            if late_seconds > 0:
                self.late += 1
                self.late_seconds_max = max(self.late_seconds_max, late_seconds)


@dataclass
class Settings:
    """What runners that are created from now on are made with."""

    engine: str | None = None  # None: what ENGINE_VARIABLE says
    plugins: dict[str, Plugin] = field(default_factory=dict)
    pace: Pace | None = None
    cores: int = DPU_CORES
    tally: Tally = field(default_factory=Tally)


settings = Settings()


class DpuJob:
    """One execution: what to do, how long it takes on the board, and whether it is done."""

    __slots__ = ("_done", "_error", "_executable", "_inputs", "_outputs", "seconds", "submitted")

    def __init__(
        self,
        executable: Executable,
        inputs: list[Array],
        outputs: list[Array],
        seconds: float | None,
    ) -> None:
        self._executable, self._inputs, self._outputs = executable, inputs, outputs
        self._error: Exception | None = None
        # Held until the job is done. A bare lock, as only one thread can wait for a job, and an
        # Event costs more than all the rest of a job's way through here.
        self._done = threading.Lock()
        self._done.acquire()
        self.seconds = seconds
        self.submitted = time.monotonic()

    def run(self) -> None:
        """Compute; an error is kept for whoever waits, as the core must go on."""
        try:
            self._executable.run(self._inputs, self._outputs)
        except Exception as error:
            self._error = error
        self._inputs = self._outputs = []  # lets go of the buffers

    def fail(self, error: Exception) -> None:
        """Let `check` raise `error`."""
        self._error = error
        self._inputs = self._outputs = []

    @property
    def is_done(self) -> bool:
        """Whether `join` returns at once."""
        return not self._done.locked()

    def finish(self) -> None:
        """Let `join` return."""
        self._done.release()

    def join(self) -> None:
        """Block until the job is done; Ctrl-C interrupts it."""
        self._done.acquire()

    def check(self) -> None:
        """Raise the job's error, if it has one."""
        if self._error is not None:
            raise self._error


class Core:
    """A core of the device: a thread that runs jobs in the order in which they come."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[DpuJob, Tally]] = queue.SimpleQueue()
        self._free = 0.0  # when the board's core would have ended its last job
        self._computing = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: DpuJob, tally: Tally) -> None:
        """Put a job behind those that wait; there is no bound on them."""
        self._jobs.put((job, tally))

    def end(self) -> None:
        """Compute nothing more; returns when what is being computed is done."""
        self._ended = True
        with self._computing:
            pass

    def _work(self) -> None:
        while True:
            self._do(*self._jobs.get())  # a call, so that an idle core keeps no job alive

    def _do(self, job: DpuJob, tally: Tally) -> None:
        with self._computing:
            if self._ended:
                return
            job.run()
        if job.seconds is not None:
            self._keep_pace(job.submitted, job.seconds, tally)
        job.finish()

    def _keep_pace(self, submitted: float, seconds: float, tally: Tally) -> None:
        """Sleep until the job would have ended on the board.

        Ends are reckoned from ends, not from when a sleep returned: it returns late, and the
        lateness of all of a queue's jobs would add up.
        """
        end = max(submitted, self._free) + seconds
        late = time.monotonic() - end
        if late < 0:
            time.sleep(-late)
            self._free = end
        else:
            self._free = end + late
        tally.add(late)


class Device:
    """The cores, started at the first use, and what was built for subgraphs.

    Attributes
    ----------
    ended : whether the interpreter ends, and jobs that are not done never will be
    taking_over : held while a runner from before a fork is made ready here
    """

    def __init__(self) -> None:
        self.ended = False
        self.taking_over = threading.Lock()
        self._lock = threading.Lock()
        self._cores: dict[str, list[Core]] = {kind: [] for kind in KINDS}
        self._turns = {kind: itertools.count() for kind in KINDS}
        self._built: weakref.WeakSet[Executable] = weakref.WeakSet()

    def next_core(self, kind: str) -> Core:
        """The core whose turn it is; CPU subgraphs have threads that take no turn of the DPU's."""
        with self._lock:
            cores, wanted = self._cores[kind], settings.cores
            while len(cores) < wanted:
                cores.append(Core(f"{kind.lower()}-core-{len(cores)}"))
            return cores[next(self._turns[kind]) % wanted]

    def executable(self, subgraph: xir.Subgraph) -> Executable:
        """The subgraph made ready to run, once for all its runners; the root stands for the graph.

        It is kept in the subgraph: its ops lead to the subgraph, so that in a table of the
        device's, whatever the table, each would keep the other alive.
        """
        engine = settings.engine or os.environ.get(ENGINE_VARIABLE) or "fast"
        key = (self, engine, frozenset(settings.plugins.items()))
        with self._lock:
            built: dict[Any, Executable] = subgraph._executables
            if key not in built:
                named = subgraph.get_graph() if subgraph.is_root else subgraph
                with contradictions(named.get_name()):
                    built[key] = Executable(subgraph, engine)
                self._built.add(built[key])
            return built[key]

    def end(self) -> None:
        """Let what computes end; nothing that waits is begun any more."""
        self.ended = True
        for core in [core for cores in self._cores.values() for core in cores]:
            core.end()

    def executables(self) -> list[Executable]:
        """All that was built and is still in use."""
        return list(self._built)


class Executable:
    """A subgraph made ready to run; safe to use from several threads.

    Attributes
    ----------
    inputs, outputs : its tensors, by name, as VART's runners list them since Vitis AI 2.5
    has_warned : whether a warning of float32 values beyond int8 was given
    """

    def __init__(self, subgraph: xir.Subgraph, engine: str) -> None:
        part = None if subgraph.is_root else subgraph
        program = build_program(subgraph.get_graph(), part, settings.plugins)
        inputs, outputs = _by_tensor_name(program.inputs), _by_tensor_name(program.outputs)
        self.inputs = [op.get_output_tensor() for op in inputs]
        self.outputs = [op.get_output_tensor() for op in outputs]
        self.has_warned = False
        self._sources = [op.get_name() for op in inputs]
        self._results = [op.get_name() for op in outputs]
        cpus = len(os.sched_getaffinity(0))
        self._engine: Engine = make_engine(program, engine, max(1, cpus // settings.cores))

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` in place from `inputs`, which have their tensors' types."""
        feeds = dict(zip(self._sources, inputs, strict=True))
        found = compute_batches(self._engine, feeds, set(self._results))
        for name, tensor, target in zip(self._results, self.outputs, outputs, strict=True):
            target[...] = _as_buffer(found[name], tensor, target.dtype)


def _by_tensor_name(ops: Sequence[xir.Op]) -> list[xir.Op]:
    return sorted(ops, key=lambda op: op.get_output_tensor().name)


def _as_buffer(values: Array, tensor: xir.Tensor, dtype: Any) -> Array:
    """A tensor's values for a buffer of `dtype`; int8 becomes float32 by the fix point."""
    return as_float(values, tensor) if dtype == np.float32 else values


def is_asynchronous() -> bool:
    """Whether jobs are done behind `execute_async`, not within it.

    Raises
    ------
    DpuError
        The environment variable names neither.
    """
    wanted = os.environ.get(EXECUTION_VARIABLE) or "synchronous"
    if wanted not in ("synchronous", "asynchronous"):
        raise DpuError(f"{EXECUTION_VARIABLE}={wanted!r} is neither synchronous nor asynchronous")
    return wanted == "asynchronous"


def job_seconds(subgraph: xir.Subgraph) -> float | None:
    """Time of a subgraph's job by the pace that is set, s; None where it is not paced.

    A root's job is one of each DPU subgraph below it.

    Raises
    ------
    DpuError
        The pace is negative or not finite.
    """
    parts = [part for part in (subgraph, *subgraph.get_children()) if device_of(part) == "DPU"]
    if settings.pace is None or not parts:
        return None
    seconds = [float(settings.pace(part)) for part in parts]
    for part, each in zip(parts, seconds, strict=True):
        if not (math.isfinite(each) and each >= 0):
            raise DpuError(f"the pace of {part.get_name()!r} is {each} s")
    return sum(seconds)


_device = Device()


def current() -> Device:
    """This process's device."""
    return _device


def _after_fork() -> None:
    """Start again in a child: locks may be held, for ever, by threads that it does not have."""
    global _device
    for executable in _device.executables():
        # Never freed, not even when the interpreter ends and clears modules: to destroy a native
        # runtime is to join its threads, which are not there.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(executable))
    _device = Device()
    settings.tally = Tally()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _end() -> None:
    _device.end()
