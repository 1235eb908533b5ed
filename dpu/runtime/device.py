"""The emulated device behind `dpu/runtime/vart.py`: its cores, their jobs and their pace.

A core is a thread that runs one job after another. The submitter of a job waits for it at once, as
on an edge board, or later, with `TUTELAGE_EXECUTION=asynchronous`. The user's threads never
compute: per-thread state of native libraries would not survive the user's forks. Two moments need
care, since a core may be inside native code then:

- interpreter shutdown: a thread that returns from native code into a finalised interpreter crashes
  the process. So running computations are completed first, and no others are started;
- a fork: the child has none of the parent's cores. It gets its own device, and runners inherited
  from the parent are prepared again at their first use.
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
"""DPU cores in AMD's ZCU104 image (twice PG338's B4096; also in DPU-PYNQ's overlay)."""

ENGINE_VARIABLE = "TUTELAGE_ENGINE"
"""Environment variable with the engine of runners, a name in `reference.ENGINES`."""

EXECUTION_VARIABLE = "TUTELAGE_EXECUTION"
"""Environment variable: "synchronous" (default) or "asynchronous", for runners created later."""

KINDS = ("DPU", "CPU")
"""Devices of subgraphs that have runners."""

Pace = Callable[[xir.Subgraph], float]
"""Time of one job of a DPU subgraph, s, with the batch of the subgraph's tensors."""


class Tally:
    """Statistics of how well the emulation kept one pace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.jobs = self.late = 0
        self.late_seconds_max = 0.0

    def add(self, late_seconds: float) -> None:
        """Count a job that ended `late_seconds` later than its pace; 0 or less is in time."""
        with self._lock:
            self.jobs += 1
            if late_seconds > 0:
                self.late += 1
                self.late_seconds_max = max(self.late_seconds_max, late_seconds)


@dataclass
class Settings:
    """Settings of runners that are created from now on."""

    engine: str | None = None  # None: the value of ENGINE_VARIABLE
    plugins: dict[str, Plugin] = field(default_factory=dict)
    pace: Pace | None = None
    cores: int = DPU_CORES
    tally: Tally = field(default_factory=Tally)


settings = Settings()


class DpuJob:
    """One execution: its work, its time on the board, and its completion."""

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
        # Locked until the job is done. A bare lock, since only one thread can wait for a job, and
        # an Event costs more than everything else a job does here.
        self._done = threading.Lock()
        self._done.acquire()
        self.seconds = seconds
        self.submitted = time.monotonic()

    def run(self) -> None:
        """Compute; an error is kept for the waiting thread, so that the core continues."""
        try:
            self._executable.run(self._inputs, self._outputs)
        except Exception as error:
            self._error = error
        self._inputs = self._outputs = []  # releases the buffers

    def fail(self, error: Exception) -> None:
        """Make `check` raise `error`."""
        self._error = error
        self._inputs = self._outputs = []

    @property
    def is_done(self) -> bool:
        """Whether `join` returns immediately."""
        return not self._done.locked()

    def finish(self) -> None:
        """Make `join` return."""
        self._done.release()

    def join(self) -> None:
        """Block until the job is done; Ctrl-C interrupts it."""
        self._done.acquire()

    def check(self) -> None:
        """Raise the job's error, if any."""
        if self._error is not None:
            raise self._error


class Core:
    """A core of the device: a thread that runs jobs in the order of submission."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[DpuJob, Tally]] = queue.SimpleQueue()
        self._free = 0.0  # time at which the board's core would have ended its last job
        self._computing = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: DpuJob, tally: Tally) -> None:
        """Append a job to the queue, which is unbounded."""
        self._jobs.put((job, tally))

    def end(self) -> None:
        """Start no more jobs; returns when the running computation is done."""
        self._ended = True
        with self._computing:
            pass

    def _work(self) -> None:
        while True:
            self._do(*self._jobs.get())  # in a call, so that an idle core references no job

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

        Each end is computed from the previous end, not from the return of a sleep: sleeps return
        late, and the lateness of all jobs in a queue would add up.
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
    """The cores, started on first use, and the executables of subgraphs.

    Attributes
    ----------
    ended : whether the interpreter is shutting down, so that unfinished jobs never finish
    taking_over : locked while a runner from before a fork is prepared in this process
    """

    def __init__(self) -> None:
        self.ended = False
        self.taking_over = threading.Lock()
        self._lock = threading.Lock()
        self._cores: dict[str, list[Core]] = {kind: [] for kind in KINDS}
        self._turns = {kind: itertools.count() for kind in KINDS}
        self._built: weakref.WeakSet[Executable] = weakref.WeakSet()

    def next_core(self, kind: str) -> Core:
        """Return the next core in turn; CPU subgraphs have their own threads and turns."""
        with self._lock:
            cores, wanted = self._cores[kind], settings.cores
            while len(cores) < wanted:
                cores.append(Core(f"{kind.lower()}-core-{len(cores)}"))
            return cores[next(self._turns[kind]) % wanted]

    def executable(self, subgraph: xir.Subgraph) -> Executable:
        """Return the executable of a subgraph, shared by all its runners; the root means the graph.

        It is stored in the subgraph. Its ops reference the subgraph, so in any table of the device
        the two would keep each other alive.
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
        """Wait for running computations; start no other job."""
        self.ended = True
        for core in [core for cores in self._cores.values() for core in cores]:
            core.end()

    def executables(self) -> list[Executable]:
        """Return all executables that are still in use."""
        return list(self._built)


class Executable:
    """A subgraph prepared for execution; thread-safe.

    Attributes
    ----------
    inputs, outputs : its tensors sorted by name, as VART's runners list them since Vitis AI 2.5
    has_warned : whether the warning about float32 values out of int8's range was issued
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
        """Compute `outputs` in place from `inputs`, which have their tensors' element types."""
        feeds = dict(zip(self._sources, inputs, strict=True))
        found = compute_batches(self._engine, feeds, set(self._results))
        for name, tensor, target in zip(self._results, self.outputs, outputs, strict=True):
            target[...] = _as_buffer(found[name], tensor, target.dtype)


def _by_tensor_name(ops: Sequence[xir.Op]) -> list[xir.Op]:
    return sorted(ops, key=lambda op: op.get_output_tensor().name)


def _as_buffer(values: Array, tensor: xir.Tensor, dtype: Any) -> Array:
    """Return a tensor's values for a buffer of `dtype`; the fix point converts int8 to float32."""
    return as_float(values, tensor) if dtype == np.float32 else values


def is_asynchronous() -> bool:
    """Return whether `execute_async` returns before its job is done.

    Raises
    ------
    DpuError
        The environment variable has another value than "synchronous" and "asynchronous".
    """
    wanted = os.environ.get(EXECUTION_VARIABLE) or "synchronous"
    if wanted not in ("synchronous", "asynchronous"):
        raise DpuError(
            f"{EXECUTION_VARIABLE} is {wanted!r}; it must be synchronous or asynchronous"
        )
    return wanted == "asynchronous"


def job_seconds(subgraph: xir.Subgraph) -> float | None:
    """Return the time of a subgraph's job at the current pace, s; None if it is not paced.

    The job of a root consists of one job of each DPU subgraph below it.

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
    """Return this process's device."""
    return _device


def _after_fork() -> None:
    """Replace the device in a child: its locks may be held by threads that do not exist there."""
    global _device
    for executable in _device.executables():
        # Never freed, not even at interpreter shutdown: destroying a native runtime joins its
        # threads, which do not exist in the child.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(executable))
    _device = Device()
    settings.tally = Tally()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _end() -> None:
    _device.end()
