"""Emulation of VART's Python module: runners that execute subgraphs of an .xmodel.

Names and behaviour follow the pybind11 module `vart` of Vitis AI 2.5/3.0, so
that a script written for the board runs unchanged; ``python -m dpu shim``
installs this module under that name.

As on a ZCU104 there are two DPU cores. Each is a thread that takes the jobs of
its runners one after the other; a new runner gets the core whose turn it is.
Runners of one subgraph share what was built for it. Jobs take as long as the
emulation computes, or, after `set_pace`, as long as a board is said to take.

Any number of jobs may be in flight; nothing holds up who starts them. A job that
nobody waits for keeps its place in its runner, without its buffers, until the
runner goes. `dpu/device.py` tells what happens at a fork and when the
interpreter ends.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpu import cpu_ops, device, xir
from dpu.arithmetic import Array
from dpu.device import KINDS, Executable, Job, Pace, Tally, job_seconds, kind_of, settings
from dpu.errors import DpuError, not_emulated

TUTELAGE_EMULATION = True  # by which board/ knows it under the name of the real module, `vart`


def set_plugins(plugins: dict[str, cpu_ops.Plugin]) -> None:
    """Implement op types of CPU subgraphs, for runners created from now on; the emulation's own."""
    settings.plugins = plugins


def set_pace(pace: Pace | None) -> None:
    """Let jobs take the time that `pace` says, for runners created from now on; None: no pace.

    The emulation's own, not VART's. A job ends `pace(subgraph)` seconds, times its batch, after
    it was submitted or after its core became free, whichever is later. What a job gives stays the
    same. CPU subgraphs are not paced. `pace_report` counts from here.

    Parameters
    ----------
    pace : such as `dpu.latency.board_pace`, whose attribute `cores` is taken for the number of
        DPU cores; a plain function has `dpu.device.DPU_CORES`
    """
    settings.pace, settings.tally = pace, Tally()
    settings.cores = getattr(pace, "cores", device.DPU_CORES)


def pace_report() -> dict[str, float]:
    """How well the emulation kept the pace since `set_pace`.

    Returns
    -------
    "jobs" that were paced, "late" ones among them, for which computing alone took longer than the
    pace, and "late_seconds_max", the most that one was late
    """
    tally = settings.tally
    return {
        "jobs": tally.jobs,
        "late": tally.late,
        "late_seconds_max": tally.late_seconds_max,
    }


def __getattr__(name: str) -> Any:
    raise not_emulated("vart", name)


class Runner:
    """Runs one subgraph; make one per thread with `create_runner`."""

    def __init__(self, subgraph: xir.Subgraph) -> None:
        self._subgraph = subgraph
        self._next_job = 0
        self._jobs: dict[int, Job] = {}
        self._make_ready()

    def _make_ready(self) -> None:
        """Take a core of this process's device, and what it has built for the subgraph."""
        self._lock = threading.Lock()
        self._executable: Executable = device.current().executable(self._subgraph)
        self._core = device.current().next_core(kind_of(self._subgraph))
        self._seconds, self._tally = job_seconds(self._subgraph), settings.tally
        self._device = device.current()  # last: it tells other threads that the rest is there

    def _notice_fork(self) -> None:
        """In a child of the process that made the runner: begin anew, without the parent's jobs."""
        with device.current().taking_over:
            if self._device is device.current():
                return
            error = DpuError("the job was started before the process forked: it is the parent's")
            for job in self._jobs.values():
                if not job.is_done:
                    job.fail(error)
                    job.finish()
            self._make_ready()

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
        if self._device is not device.current():
            self._notice_fork()
        executable = self._executable
        sources = _buffers(inputs, executable.inputs, "input", enable_dynamic_array)
        targets = _buffers(outputs, executable.outputs, "output", enable_dynamic_array)
        seconds = self._seconds
        if enable_dynamic_array:
            batch = _batch(sources, executable.inputs, targets, executable.outputs)
            seconds = None if seconds is None else batch * seconds
        job = Job(executable, sources, targets, seconds)
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
            The job is unknown or was waited for already, it failed, it was started by the process
            that this one was forked from, or the interpreter ends.
        """
        if self._device is not device.current():
            self._notice_fork()
        number = job[0] if isinstance(job, (tuple, list)) else int(job)
        with self._lock:
            pending = self._jobs.pop(number, None)
        if pending is None:
            raise DpuError(f"job {number} is unknown to this runner, or was waited for already")
        ends = self._device.ended and not pending.is_done
        if ends and not threading.current_thread().daemon:  # a daemon stays where it is, as ever
            raise DpuError(f"the interpreter ends: job {number} will not be done any more")
        try:
            pending.join()
        except BaseException:  # Ctrl-C: the job goes on, and can be waited for again
            with self._lock:
                self._jobs[number] = pending
            raise
        pending.check()
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
    kind = kind_of(subgraph)
    if kind not in KINDS:
        what = f"subgraph {subgraph.get_name()!r} has the device {kind or 'none'}"
        raise DpuError(f"{what}; a runner is made from one of the root's children with device DPU")


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
