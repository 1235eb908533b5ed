"""Emulation of VART's Python module, whose runners execute subgraphs of an .xmodel.

Names and behaviour follow the pybind11 module `vart` of Vitis AI 2.5 to 3.5 on an edge board, so
that a script written for the board runs unchanged; `dpu/runtime/shim.py` makes it importable under
that name.

As on a ZCU104 there are two DPU cores, and a new runner gets the next core in turn. Runners of
one subgraph share its executable. `execute_async` returns when the job is done, and releases
the interpreter while the job is computed, so that runners in two threads keep both cores busy. With
`TUTELAGE_EXECUTION=asynchronous` it returns at once instead: any number of jobs may be in flight,
each with its own number. A runner keeps the numbers of jobs that are never waited for as long as it
exists, but not their buffers.

Jobs take as long as the emulation computes, or, after `set_pace`, as long as predicted for a
board. `dpu/runtime/device.py` describes forks and interpreter shutdown.
"""

from __future__ import annotations

import operator
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import DpuError, not_emulated
from tutelage.core.fingerprint import device_of
from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.reference import Plugin
from tutelage.dpu.runtime import device, xir
from tutelage.dpu.runtime.device import (
    KINDS,
    DpuJob,
    Executable,
    Pace,
    Tally,
    job_seconds,
    settings,
)

TUTELAGE_EMULATION = True  # distinguishes this module from the real `vart` for board/


def set_plugins(plugins: dict[str, Plugin]) -> None:
    """Set plugins for op types of CPU subgraphs, for runners created later; not part of VART."""
    settings.plugins = plugins


def set_pace(pace: Pace | None) -> None:
    """Set the time that jobs take, for runners created later; None for no pace. Not part of VART.

    A job ends `pace(subgraph)` seconds, times its batch, after it was submitted or after its core
    became free, whichever is later; only then does `execute_async` return. The results are
    unaffected. CPU subgraphs are not paced. Resets `pace_report`.

    Parameters
    ----------
    pace : such as `tutelage.dpu.predict.latency.board_pace`, whose attribute `cores` gives the
        number of DPU cores; for a plain function it is `tutelage.dpu.runtime.device.DPU_CORES`
    """
    settings.pace, settings.tally = pace, Tally()
    settings.cores = getattr(pace, "cores", device.DPU_CORES)


def set_engine(engine: str | None) -> None:
    """Set the engine of runners created later, one of `tutelage.dpu.engine.reference.ENGINES`.

    None: the value of the environment variable `tutelage.dpu.runtime.device.ENGINE_VARIABLE`.
    """
    settings.engine = engine


def pace_report() -> dict[str, float]:
    """Return how well the emulation has kept the pace since `set_pace`.

    Returns
    -------
    "jobs": number of paced jobs; "late": number of those whose computation alone took longer than
    the pace; "late_seconds_max": largest lateness of a job, s
    """
    tally = settings.tally
    return {
        "jobs": tally.jobs,
        "late": tally.late,
        "late_seconds_max": tally.late_seconds_max,
    }


def graph_runner(graph: xir.Graph) -> RunnerExt:
    """Return a runner for a whole compiled graph, as `vitis_ai_library.GraphRunner` does.

    Its inputs are those of the graph, its outputs the tensors that no op reads, both sorted by name
    (VART's graph_runner_imp.cpp). The whole job occupies a DPU core.

    Raises
    ------
    TypeError
        `graph` is not an `xir.Graph`.
    DpuError
        The graph is not compiled, or one of its ops cannot be run.
    """
    if not isinstance(graph, xir.Graph):
        raise TypeError(f"a graph runner is created from an xir.Graph, not {_type(graph)}")
    root = graph.get_root_subgraph()
    if root.is_leaf:
        raise DpuError(f"graph {graph.get_name()!r} has no subgraphs: it is not compiled")
    return _GraphRunner._of(root)


def __getattr__(name: str) -> Any:
    raise not_emulated("vart", name)


class Runner:
    """Runner of one subgraph; create one per thread with `create_runner`."""

    _done = (1, 0)  # returned for every job on edge boards (VART's dpu_runner_ddr.cpp)
    _subgraph: xir.Subgraph
    _asynchronous: bool
    _jobs: dict[int, DpuJob]  # used by asynchronous devices only
    _next_job: int

    def __init__(self, *_: object) -> None:
        raise TypeError("vart.Runner: No constructor defined!")

    @classmethod
    def _of(cls, subgraph: xir.Subgraph) -> Any:
        runner = cls.__new__(cls)
        runner._subgraph = subgraph
        runner._next_job = 0
        runner._jobs = {}
        runner._asynchronous = device.is_asynchronous()
        runner._make_ready()
        return runner

    def _make_ready(self) -> None:
        """Assign a core of this process's device and the executable of the subgraph."""
        kind = device_of(self._subgraph)
        self._lock = threading.Lock()
        self._executable: Executable = device.current().executable(self._subgraph)
        self._core = device.current().next_core(kind if kind in KINDS else KINDS[0])
        self._seconds, self._tally = job_seconds(self._subgraph), settings.tally
        self._device = device.current()  # last: signals to other threads that the rest is set

    def _notice_fork(self) -> None:
        """Prepare the runner again in a forked child, without the parent's jobs."""
        with device.current().taking_over:
            if self._device is device.current():
                return
            error = DpuError("the job was started before the fork; only the parent can wait for it")
            for job in self._jobs.values():
                if not job.is_done:
                    job.fail(error)
                    job.finish()
            self._make_ready()

    @staticmethod
    def create_runner(subgraph: xir.Subgraph, mode: str = "") -> Runner:
        """Return a runner for a subgraph of the device DPU, or CPU, as in VART.

        Raises
        ------
        TypeError
            The mode is not a str.
        RuntimeError
            The subgraph has another device, the mode is unknown, or one of its ops cannot
            be run.
        """
        _check_subgraph(subgraph, mode)
        return Runner._of(subgraph)

    def get_input_tensors(self) -> list[xir.Tensor]:
        """Return the inputs sorted by name, the order of buffers in `execute_async`."""
        return list(self._executable.inputs)

    def get_output_tensors(self) -> list[xir.Tensor]:
        """Return the outputs sorted by name, the order of buffers in `execute_async`."""
        return list(self._executable.outputs)

    def execute_async(
        self, inputs: Sequence[Any], outputs: Sequence[Any], enable_dynamic_array: bool = False
    ) -> tuple[int, int]:
        """Run a job; returns when it is done, or immediately on an asynchronous device.

        Once the job is done, the outputs are filled and the inputs may be reused.

        Parameters
        ----------
        inputs, outputs : one writable C-contiguous buffer per tensor (numpy array, memoryview,
            TensorBuffer), in a sequence; an array counts as the sequence of its rows. int8, or
            float32, which is cast to int8 by the fix point on the way in (towards zero, without
            saturation) and converted on the way out. Only a buffer's first elements are used, as
            many as the tensor has; its shape does not matter
        enable_dynamic_array : take shape and batch size from the buffers, which must all have the
            same batch size

        Returns
        -------
        (job id, status), to be passed to `wait`; status 0 means success

        Raises
        ------
        TypeError
            An argument is not a sequence of buffers.
        ValueError
            A buffer is missing, read-only, too small, or has another type or order.
        RuntimeError
            The job failed, or the interpreter is shutting down.

        Warns
        -----
        RuntimeWarning
            Once per subgraph: a float32 value does not fit into int8 and wraps around.
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
        values, stray = _cast(sources, executable.inputs)
        if stray and not executable.has_warned:
            executable.has_warned = True
            text = "float32 values out of int8's range wrap around, as on aarch64; clip them"
            warnings.warn(f"input {stray!r}: {text}", RuntimeWarning, stacklevel=2)
        job = DpuJob(executable, values, targets, seconds)
        if self._asynchronous:
            with self._lock:
                number = self._next_job
                self._next_job += 1
                self._jobs[number] = job
            self._core.submit(job, self._tally)
            return number, 0
        self._core.submit(job, self._tally)
        self._await(job)
        job.check()
        return self._done

    def wait(self, job_id: tuple[int, int], /) -> int:
        """Return 0, since `execute_async` has already done any job.

        On an asynchronous device, block until the job is done.

        Raises
        ------
        TypeError
            `job_id` is not a pair of integers.
        RuntimeError
            On an asynchronous device: the job is unknown or was already waited for, it failed, it
            was started before a fork by the parent, or the interpreter is shutting down.
        """
        number = _job_number(job_id)
        return self._join(number) if self._asynchronous else 0

    def _join(self, number: int) -> int:
        if self._device is not device.current():
            self._notice_fork()
        with self._lock:
            pending = self._jobs.pop(number, None)
        if pending is None:
            raise DpuError(f"job {number} is unknown to this runner, or was already waited for")
        try:
            self._await(pending)
        except BaseException:  # Ctrl-C: the job continues and can be waited for again
            with self._lock:
                self._jobs[number] = pending
            raise
        pending.check()
        return 0

    def _await(self, job: DpuJob) -> None:
        """Block until a job is done."""
        ends = self._device.ended and not job.is_done
        if ends and not threading.current_thread().daemon:  # daemons block here
            raise DpuError("the interpreter is shutting down; the job will not be done")
        job.join()

    def __repr__(self) -> str:
        return f"vart::Runner@{id(self):#x}"

    def __getattr__(self, name: str) -> Any:
        raise not_emulated(f"vart.{type(self).__name__}", name)


class TensorBuffer(np.ndarray):
    """A buffer for one tensor: the buffer protocol and `get_tensor`, as in VART.

    A subclass of an array, because before Python 3.12 only types written in C can offer a buffer
    (numpy.asarray, memoryview); all other uses as an array are disabled.
    """

    def get_tensor(self) -> xir.Tensor:
        """Return the tensor that the buffer is for."""
        return super().__getattribute__("_tensor")

    def __getattribute__(self, name: str) -> Any:
        if name != "get_tensor" and not name.startswith("__"):
            raise AttributeError(f"'vart.TensorBuffer' object has no attribute {name!r}")
        return super().__getattribute__(name)

    def _refuse(self, *_: object) -> Any:
        raise TypeError("a vart.TensorBuffer is a buffer, not an array; pass it to numpy.asarray")

    def _refuse_copy(self, *_: object) -> Any:
        raise TypeError("a vart.TensorBuffer cannot be copied or pickled; pass it to numpy.array")

    __len__ = __iter__ = __getitem__ = __setitem__ = _refuse
    __copy__ = __deepcopy__ = __reduce_ex__ = _refuse_copy
    __array_ufunc__ = None  # type: ignore[assignment]
    __eq__, __hash__ = object.__eq__, object.__hash__  # type: ignore[assignment]

    def __dir__(self) -> list[str]:
        return [*dir(object), "get_tensor"]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        """Return the text of VART's `TensorBuffer::to_string`."""
        tensor, view = self.get_tensor(), np.asarray(self)
        shape = ", ".join(map(str, tensor.dims))
        start, size = view.__array_interface__["data"][0], view.nbytes // tensor.dims[0]
        images = range(start, start + view.nbytes, size)
        data = ",".join(f"(Virt={image:#x}, {size})" for image in images)
        what = f"name = {tensor.name}, type = {tensor.dtype.upper()}, shape = {{{shape}}}"
        place = f"@{id(self):#x},tensor=xir::Tensor{{{what}}},location=HOST_VIRT"
        return f"TensorBuffer{{{place},data=[{data}]}}"

    __str__ = __repr__


def _tensor_buffer(tensor: xir.Tensor) -> TensorBuffer:
    buffer = np.zeros(tensor.dims, np.int8 if tensor.is_int8 else np.float32).view(TensorBuffer)
    object.__setattr__(buffer, "_tensor", tensor)
    return buffer


class RunnerExt(Runner):
    """A runner that makes buffers for its tensors."""

    @staticmethod
    def create_runner(subgraph: xir.Subgraph, mode: str, /) -> RunnerExt:  # type: ignore[override]
        """Return a runner as `Runner.create_runner` does."""
        _check_subgraph(subgraph, mode)
        return RunnerExt._of(subgraph)

    def get_inputs(self) -> list[TensorBuffer]:
        """Return new buffers for the inputs, in the order of `get_input_tensors`."""
        return [_tensor_buffer(tensor) for tensor in self._executable.inputs]

    def get_outputs(self) -> list[TensorBuffer]:
        """Return new buffers for the outputs, in the order of `get_output_tensors`."""
        return [_tensor_buffer(tensor) for tensor in self._executable.outputs]


class _GraphRunner(RunnerExt):
    _done = (0, 0)  # as in VART's graph_runner_imp.cpp


def _check_subgraph(subgraph: Any, mode: str) -> None:
    if not isinstance(subgraph, xir.Subgraph):
        raise DpuError(f"a runner is created from an xir.Subgraph, not {_type(subgraph)}")
    if not isinstance(mode, str):
        raise TypeError(f"a runner's mode is a str, not {_type(mode)}")
    if mode not in ("", "run"):
        raise DpuError(f"runner mode {mode!r} is not emulated; use 'run'")
    kind = device_of(subgraph)
    if kind not in KINDS:
        what = f"subgraph {subgraph.get_name()!r} has the device {kind or 'none'}"
        raise DpuError(f"{what}; create runners from the root's children with device DPU")


def _type(value: object) -> str:
    return type(value).__name__


def _job_number(job_id: Any) -> int:
    try:
        number, _ = map(operator.index, job_id)
    except (TypeError, ValueError):
        text = f"wait() takes the pair returned by execute_async, not {job_id!r}"
        raise TypeError(text) from None
    return number


# ---- buffers -------------------------------------------------------------------------------------


def _buffers(
    buffers: Sequence[Any], tensors: Sequence[xir.Tensor], what: str, dynamic: bool
) -> list[Array]:
    """Return arrays that share the buffers' memory, each checked against its tensor."""
    if isinstance(buffers, (str, bytes)) or not isinstance(buffers, (Sequence, np.ndarray)):
        raise TypeError(f"{what}s must be a sequence of buffers, not {_type(buffers)}")
    if len(buffers) != len(tensors):
        raise ValueError(f"{len(buffers)} {what} buffers for {len(tensors)} {what} tensors")
    return [
        _buffer(buffer, tensor, f"{what} buffer for {tensor.name!r}", dynamic)
        for buffer, tensor in zip(buffers, tensors, strict=True)
    ]


def _buffer(buffer: Any, tensor: xir.Tensor, name: str, dynamic: bool) -> Array:
    """Return a buffer's first elements, as many as the tensor has, in the tensor's shape.

    VART takes the address and the element type from the buffer, and the rest from the tensor.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"{name} is {_type(buffer)}, not a buffer such as a numpy array") from None
    if view.readonly:
        raise ValueError(f"{name} is read-only")
    array = np.asarray(view)
    allowed = (np.int8, np.float32) if tensor.is_int8 else (np.float32,)
    if array.dtype not in allowed:
        wanted = " or ".join(np.dtype(kind).name for kind in allowed)
        raise ValueError(f"{name} is {array.dtype}, expected {wanted}")
    if not view.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    if not dynamic:
        count = tensor.get_element_num()
        if array.size < count:
            raise ValueError(f"{name} has {array.size} elements, expected {count}")
        return array.reshape(-1)[:count].reshape(tensor.dims)
    if array.ndim != tensor.ndim or list(array.shape[1:]) != tensor.dims[1:]:
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {tensor.dims}")
    return array


def _batch(
    sources: list[Array],
    inputs: Sequence[xir.Tensor],
    targets: list[Array],
    outputs: Sequence[xir.Tensor],
) -> int:
    """Return the batch size of all buffers, as a multiple of the tensors' batch size."""
    pairs = zip([*sources, *targets], [*inputs, *outputs], strict=True)
    sizes = {len(array) / tensor.dims[0] for array, tensor in pairs if tensor.ndim}
    if len(sizes) > 1 or any(size < 1 or size % 1 for size in sizes):
        raise ValueError(f"the buffers' batch sizes {sorted(sizes)} do not match")
    return int(sizes.pop()) if sizes else 1


def _cast(arrays: list[Array], tensors: Sequence[xir.Tensor]) -> tuple[list[Array], str]:
    """Return inputs in their tensors' types, and the name of one with values out of range, or "".

    float32 becomes int8 by `(int8_t)(value * 2^fix_point)` (VART's tensor_buffer.cpp), which
    truncates towards zero. Outside int8's range the cast is undefined in C++; here it gives the
    result of aarch64's instructions: the low byte of a saturated int32, 0 for NaN.
    """
    values, stray = [], ""
    for array, tensor in zip(arrays, tensors, strict=True):
        if tensor.is_int8 and array.dtype == np.float32:
            with np.errstate(over="ignore", invalid="ignore"):
                array = array * np.float32(2.0 ** tensor.get_attr("fix_point"))
            low, high = array.min(), array.max()
            if not (low > -129 and high < 128):  # NaN is not
                array, stray = np.nan_to_num(array.astype(np.float64), nan=0.0), tensor.name
                array = np.clip(array, -(2.0**31), 2.0**31 - 1).astype(np.int64)
            array = array.astype(np.int8)
        values.append(array)
    return values, stray
