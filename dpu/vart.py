"""Emulation of VART's Python module: runners that execute subgraphs of an .xmodel.

Names and behaviour follow the pybind11 module `vart` of Vitis AI 2.5/3.0, so
that a script written for the board runs unchanged; ``python -m dpu shim``
installs this module under that name.

As on a ZCU104 there are two DPU cores. Each is a thread that takes the jobs of
its runners one after the other; a new runner gets the core whose turn it is.
Runners of one subgraph share what was built for it. Jobs take as long as the
emulation computes, or, after `set_pace`, as long as a board is said to take.
"""

from __future__ import annotations

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

from dpu import cpu_ops, xir
from dpu.arithmetic import Array
from dpu.engine import Engine, as_float, compute_batches, make_engine
from dpu.errors import DpuError, contradictions, not_emulated
from dpu.program import build_program, feed

TUTELAGE_EMULATION = True  # by which board/ knows it under the name of the real module, `vart`
DPU_CORES = 2
"""Cores of the DPU in AMD's ZCU104 image (PG338's B4096 twice; DPU-PYNQ's overlay too)."""

ENGINE_VARIABLE = "TUTELAGE_ENGINE"
"""Environment variable with the engine that runners use: "fast" (default) or "reference"."""

_DEVICES = ("DPU", "CPU")

Pace = Callable[[xir.Subgraph], float]
"""Seconds that one job of a DPU subgraph takes, with the batch of the subgraph's tensors."""


class _Tally:
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
class _Settings:
    plugins: dict[str, cpu_ops.Plugin] = field(default_factory=dict)
    pace: Pace | None = None
    cores: int = DPU_CORES
    tally: _Tally = field(default_factory=_Tally)


_settings = _Settings()


def set_plugins(plugins: dict[str, cpu_ops.Plugin]) -> None:
    """Implement op types of CPU subgraphs, for runners created from now on; the emulation's own."""
    _settings.plugins = plugins


def set_pace(pace: Pace | None) -> None:
    """Let jobs take the time that `pace` says, for runners created from now on; None: no pace.

    The emulation's own, not VART's. A job ends `pace(subgraph)` seconds, times its batch, after
    it was submitted or after its core became free, whichever is later. What a job gives stays the
    same. CPU subgraphs are not paced. `pace_report` counts from here.

    Parameters
    ----------
    pace : such as `dpu.latency.board_pace`, whose attribute `cores` is taken for the number of
        DPU cores; a plain function has `DPU_CORES`
    """
    _settings.pace, _settings.tally = pace, _Tally()
    _settings.cores = getattr(pace, "cores", DPU_CORES)


def pace_report() -> dict[str, float]:
    """How well the emulation kept the pace since `set_pace`.

    Returns
    -------
    "jobs" that were paced, "late" ones among them, for which computing alone took longer than the
    pace, and "late_seconds_max", the most that one was late
    """
    tally = _settings.tally
    return {
        "jobs": tally.jobs,
        "late": tally.late,
        "late_seconds_max": tally.late_seconds_max,
    }


def __getattr__(name: str) -> Any:
    raise not_emulated("vart", name)


class _Job:
    """One execution: what to do, how long it takes on the board, and whether it is done."""

    __slots__ = ("_done", "_error", "_executable", "_inputs", "_outputs", "seconds", "submitted")

    def __init__(
        self,
        executable: _Executable,
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

    def finish(self) -> None:
        """Let `wait` return."""
        self._done.release()

    def wait(self) -> None:
        self._done.acquire()
        if self._error is not None:
            raise self._error


class _Core:
    """A DPU core: a thread that runs jobs in the order in which they come."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[_Job, _Tally]] = queue.SimpleQueue()
        self._free = 0.0  # when the board's core would have ended its last job
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: _Job, tally: _Tally) -> None:
        self._jobs.put((job, tally))

    def _work(self) -> None:
        while True:
            self._do(*self._jobs.get())  # a call, so that an idle core keeps no job alive

    def _do(self, job: _Job, tally: _Tally) -> None:
        job.run()
        if job.seconds is not None:
            self._keep_pace(job.submitted, job.seconds, tally)
        job.finish()

    def _keep_pace(self, submitted: float, seconds: float, tally: _Tally) -> None:
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


class _Device:
    """The cores, started at the first use, and what was built for each subgraph."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cores: dict[str, list[_Core]] = {kind: [] for kind in _DEVICES}
        self._turns = {kind: itertools.count() for kind in _DEVICES}
        self._built: weakref.WeakKeyDictionary[xir.Subgraph, dict[str, _Executable]]
        self._built = weakref.WeakKeyDictionary()

    def next_core(self, kind: str) -> _Core:
        """The core whose turn it is; CPU subgraphs have threads that take no turn of the DPU's."""
        with self._lock:
            cores, wanted = self._cores[kind], _settings.cores
            while len(cores) < wanted:
                cores.append(_Core(f"{kind.lower()}-core-{len(cores)}"))
            return cores[next(self._turns[kind]) % wanted]

    def executable(self, subgraph: xir.Subgraph) -> _Executable:
        engine = os.environ.get(ENGINE_VARIABLE) or "fast"
        key = f"{engine} {id(_settings.plugins)}"
        with self._lock:
            built = self._built.setdefault(subgraph, {})
            if key not in built:
                with contradictions(subgraph.get_name()):
                    built[key] = _Executable(subgraph, engine)
            return built[key]


class _Executable:
    """A subgraph made ready to run; safe to use from several threads."""

    def __init__(self, subgraph: xir.Subgraph, engine: str) -> None:
        program = build_program(subgraph.get_graph(), subgraph, _settings.plugins)
        self.inputs = [op.get_output_tensor() for op in program.inputs]
        self.outputs = [op.get_output_tensor() for op in program.outputs]
        self._sources = [(op, op.get_name()) for op in program.inputs]
        self._results = [op.get_name() for op in program.outputs]
        cpus = len(os.sched_getaffinity(0))
        self._engine: Engine = make_engine(program, engine, max(1, cpus // _settings.cores))

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute `outputs` in place from `inputs`."""
        pairs = zip(self._sources, inputs, strict=True)
        feeds = {name: feed(op, array) for (op, name), array in pairs}
        found = compute_batches(self._engine, feeds, set(self._results))
        for name, tensor, target in zip(self._results, self.outputs, outputs, strict=True):
            target[...] = _as_buffer(found[name], tensor, target.dtype)


def _as_buffer(values: Array, tensor: xir.Tensor, dtype: Any) -> Array:
    """A tensor's values for a buffer of `dtype`; int8 becomes float32 by the fix point."""
    return as_float(values, tensor) if dtype == np.float32 else values


_device = _Device()


class Runner:
    """Runs one subgraph; make one per thread with `create_runner`."""

    def __init__(self, subgraph: xir.Subgraph) -> None:
        self._executable = _device.executable(subgraph)
        self._core = _device.next_core(_kind(subgraph))
        self._seconds, self._tally = _seconds(subgraph), _settings.tally
        self._lock = threading.Lock()
        self._next_job = 0
        self._jobs: dict[int, _Job] = {}

    @staticmethod
    def create_runner(subgraph: xir.Subgraph, mode: str = "") -> Runner:
        """A runner for a subgraph with the device DPU (or CPU, as VART has them).

        Raises
        ------
        RuntimeError
            The subgraph belongs to no such device, the mode is unknown, or an op of it
            cannot be run.
        """
        _check_subgraph(subgraph, mode)
        return Runner(subgraph)

    def get_input_tensors(self) -> list[xir.Tensor]:
        """The inputs, in the order in which `execute_async` wants their buffers."""
        return list(self._executable.inputs)

    def get_output_tensors(self) -> list[xir.Tensor]:
        """The outputs, in the order in which `execute_async` wants their buffers."""
        return list(self._executable.outputs)

    def execute_async(
        self, inputs: Sequence[Any], outputs: Sequence[Any], enable_dynamic_array: bool = False
    ) -> tuple[int, int]:
        """Start a job and return at once.

        Parameters
        ----------
        inputs, outputs : one C-ordered buffer per tensor, with the tensor's dims; int8, or
            float32 that is quantised and dequantised by the fix point on the way. They
            belong to the job until `wait` returns.
        enable_dynamic_array : take another batch size than the tensors', the same in all

        Returns
        -------
        (job id, status), to be given to `wait`; status 0 is good

        Raises
        ------
        ValueError
            A buffer is missing, or has the wrong type, shape or order.
        """
        executable = self._executable
        sources = _buffers(inputs, executable.inputs, "input", enable_dynamic_array)
        targets = _buffers(outputs, executable.outputs, "output", enable_dynamic_array)
        seconds = self._seconds
        if enable_dynamic_array:
            batch = _batch(sources, executable.inputs, targets, executable.outputs)
            seconds = None if seconds is None else batch * seconds
        job = _Job(executable, sources, targets, seconds)
        with self._lock:
            number = self._next_job
            self._next_job += 1
            self._jobs[number] = job
        self._core.submit(job, self._tally)
        return number, 0

    def wait(self, job: tuple[int, int] | int) -> int:
        """Block until a job is done and its outputs are filled; returns the status 0.

        Raises
        ------
        RuntimeError
            The job is unknown or was waited for already, or it failed.
        """
        number = job[0] if isinstance(job, (tuple, list)) else int(job)
        with self._lock:
            pending = self._jobs.pop(number, None)
        if pending is None:
            raise DpuError(f"job {number} is unknown to this runner, or was waited for already")
        pending.wait()
        return 0

    def __getattr__(self, name: str) -> Any:
        raise not_emulated(f"vart.{type(self).__name__}", name)


class TensorBuffer(np.ndarray):
    """A runner's own buffer for one tensor; an array, hence with the buffer protocol."""

    _tensor: xir.Tensor

    @classmethod
    def _make(cls, tensor: xir.Tensor) -> TensorBuffer:
        dtype = np.int8 if tensor.is_int8 else np.float32
        buffer = np.zeros(tensor.dims, dtype).view(cls)
        buffer._tensor = tensor
        return buffer

    def get_tensor(self) -> xir.Tensor:
        """The tensor that the buffer holds."""
        return self._tensor


class RunnerExt(Runner):
    """A runner with buffers of its own."""

    def __init__(self, subgraph: xir.Subgraph) -> None:
        super().__init__(subgraph)
        self._inputs = [TensorBuffer._make(tensor) for tensor in self._executable.inputs]
        self._outputs = [TensorBuffer._make(tensor) for tensor in self._executable.outputs]

    @staticmethod
    def create_runner(subgraph: xir.Subgraph, mode: str = "") -> RunnerExt:
        """As `Runner.create_runner`."""
        _check_subgraph(subgraph, mode)
        return RunnerExt(subgraph)

    def get_inputs(self) -> list[TensorBuffer]:
        """The buffers of the inputs; always the same ones."""
        return list(self._inputs)

    def get_outputs(self) -> list[TensorBuffer]:
        """The buffers of the outputs; always the same ones."""
        return list(self._outputs)


def _check_subgraph(subgraph: Any, mode: str) -> None:
    if not isinstance(subgraph, xir.Subgraph):
        raise DpuError(f"a runner is made from an xir.Subgraph, not {type(subgraph).__name__}")
    if mode not in ("", "run"):
        raise not_emulated("runner mode", mode)
    device = _kind(subgraph)
    if device not in _DEVICES:
        what = f"subgraph {subgraph.get_name()!r} has the device {device or 'none'}"
        raise DpuError(f"{what}; a runner is made from one of the root's children with device DPU")


def _kind(subgraph: xir.Subgraph) -> str:
    """The subgraph's device in capitals, "" where it has none."""
    return str(subgraph.get_attr("device")).upper() if subgraph.has_attr("device") else ""


def _seconds(subgraph: xir.Subgraph) -> float | None:
    """What a job of the subgraph takes by the pace that is set; None where it is not paced."""
    if _settings.pace is None or _kind(subgraph) != "DPU":
        return None
    seconds = float(_settings.pace(subgraph))
    if not (math.isfinite(seconds) and seconds >= 0):
        raise DpuError(f"the pace of {subgraph.get_name()!r} is {seconds} s")
    return seconds


def _buffers(
    buffers: Sequence[Any], tensors: Sequence[xir.Tensor], what: str, any_batch: bool
) -> list[Array]:
    """The buffers as arrays that share their memory, after checking each against its tensor."""
    if isinstance(buffers, np.ndarray) or not isinstance(buffers, Sequence):
        raise ValueError(f"{what}s must be a list of buffers, not {type(buffers).__name__}")
    if len(buffers) != len(tensors):
        raise ValueError(f"{len(buffers)} {what} buffers for {len(tensors)} {what} tensors")
    return [
        _buffer(buffer, tensor, what, any_batch)
        for buffer, tensor in zip(buffers, tensors, strict=True)
    ]


def _buffer(buffer: Any, tensor: xir.Tensor, what: str, any_batch: bool) -> Array:
    array = np.asarray(buffer)
    name = f"{what} buffer for {tensor.name!r}"
    if not isinstance(buffer, np.ndarray) and not np.shares_memory(array, memoryview(buffer)):
        raise ValueError(f"{name} has no memory of its own")
    allowed = (np.int8, np.float32) if tensor.is_int8 else (np.float32,)
    if array.dtype not in allowed:
        wanted = " or ".join(np.dtype(kind).name for kind in allowed)
        raise ValueError(f"{name} is {array.dtype}, wanted {wanted}")
    first = 1 if any_batch else 0
    if list(array.shape[first:]) != tensor.dims[first:] or array.ndim != tensor.ndim:
        raise ValueError(f"{name} has shape {list(array.shape)}, wanted {tensor.dims}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    if what == "output" and not array.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return array


def _batch(
    sources: list[Array],
    inputs: Sequence[xir.Tensor],
    targets: list[Array],
    outputs: Sequence[xir.Tensor],
) -> int:
    """How many times the tensors' batch the buffers hold, the same in all of them."""
    pairs = zip([*sources, *targets], [*inputs, *outputs], strict=True)
    sizes = {len(array) / tensor.dims[0] for array, tensor in pairs if tensor.ndim}
    if len(sizes) > 1 or any(size < 1 or size % 1 for size in sizes):
        raise ValueError(f"the buffers' batch sizes {sorted(sizes)} do not fit each other")
    return int(sizes.pop()) if sizes else 1
