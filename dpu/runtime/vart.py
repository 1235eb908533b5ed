"""Emulation of VART's Python module: runners that execute subgraphs of an .xmodel.

Names and behaviour follow the pybind11 module `vart` of Vitis AI 2.5 to 3.5 on an edge board, so
that a script written for the board runs unchanged; `dpu/runtime/shim.py` makes it importable under
that name.

As on a ZCU104 there are two DPU cores, and a new runner gets the core whose turn it is. Runners of
one subgraph share what was built for it. `execute_async` returns when the job is done, and releases
the interpreter while the job is computed, so that runners in two threads keep both cores busy. With
`TUTELAGE_EXECUTION=asynchronous` it returns at once instead: any number of jobs may be in flight,
each has a number of its own. A runner keeps the numbers of jobs that nobody waits for as long as it
exists, but not their buffers.

Jobs take as long as the emulation computes, or, after `set_pace`, as long as a board is predicted
to take. `dpu/runtime/device.py` says what happens at a fork and when the interpreter ends.
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

TUTELAGE_EMULATION = True  # by which board/ knows it under the name of the real module, `vart`


def set_plugins(plugins: dict[str, Plugin]) -> None:
    """Implement op types of CPU subgraphs, for runners created from now on; the emulation's own."""
    settings.plugins = plugins


def set_pace(pace: Pace | None) -> None:
    """Let jobs take the time that `pace` says, for runners created from now on; None: no pace.

    The emulation's own, not VART's. A job ends `pace(subgraph)` seconds, times its batch, after
    it was submitted or after its core became free, whichever is later; `execute_async` returns
    then. The results of a job stay the same. CPU subgraphs are not paced. `pace_report` counts from
    here.

    Parameters
    ----------
    pace : such as `tutelage.dpu.predict.latency.board_pace`, whose attribute `cores` is taken for
        the number of
        DPU cores; a plain function has `tutelage.dpu.runtime.device.DPU_CORES`
    """
    settings.pace, settings.tally = pace, Tally()
    settings.cores = getattr(pace, "cores", device.DPU_CORES)


def set_engine(engine: str | None) -> None:
    """Let runners created from now on use an engine of `tutelage.dpu.engine.reference.ENGINES`.

    None: what the environment variable `tutelage.dpu.runtime.device.ENGINE_VARIABLE` says.
    """
    settings.engine = engine


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


def graph_runner(graph: xir.Graph) -> RunnerExt:
    """A runner for a whole compiled graph; what `vitis_ai_library.GraphRunner` gives.

    Its inputs are the graph's, its outputs what no op reads, both by name (VART's
    graph_runner_imp.cpp). The whole of a job takes a DPU core.

    Raises
    ------
    TypeError
        `graph` is not an `xir.Graph`.
    DpuError
        The graph is not compiled, or an op of it cannot be run.
    """
    if not isinstance(graph, xir.Graph):
        raise TypeError(f"a graph runner is made from an xir.Graph, not {_type(graph)}")
    root = graph.get_root_subgraph()
    if root.is_leaf:
        raise DpuError(f"graph {graph.get_name()!r} has no subgraphs: it is not compiled")
    return _GraphRunner._of(root)


def __getattr__(name: str) -> Any:
    raise not_emulated("vart", name)


class Runner:
    """Runs one subgraph; make one per thread with `create_runner`."""

    _done = (1, 0)  # returned for every job on edge boards (VART's dpu_runner_ddr.cpp)
    _subgraph: xir.Subgraph
    _asynchronous: bool
    _jobs: dict[int, DpuJob]  # of an asynchronous device
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
        """Take a core of this process's device, and what it has built for the subgraph."""
        kind = device_of(self._subgraph)
        self._lock = threading.Lock()
        self._executable: Executable = device.current().executable(self._subgraph)
        self._core = device.current().next_core(kind if kind in KINDS else KINDS[0])
        self._seconds, self._tally = job_seconds(self._subgraph), settings.tally
        self._device = device.current()  # last: it tells other threads that the rest is there

    def _notice_fork(self) -> None:
        """In a child of the process that made the runner: start again, without its jobs."""
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
        TypeError
            The mode is not a str.
        RuntimeError
            The subgraph belongs to no such device, the mode is unknown, or an op of it
            cannot be run.
        """
        _check_subgraph(subgraph, mode)
        return Runner._of(subgraph)

    def get_input_tensors(self) -> list[xir.Tensor]:
        """The inputs by name, which is the order in which `execute_async` wants their buffers."""
        return list(self._executable.inputs)

    def get_output_tensors(self) -> list[xir.Tensor]:
        """The outputs by name, which is the order in which `execute_async` wants their buffers."""
        return list(self._executable.outputs)

    def execute_async(
        self, inputs: Sequence[Any], outputs: Sequence[Any], enable_dynamic_array: bool = False
    ) -> tuple[int, int]:
        """Run a job; returns when it is done, or at once on an asynchronous device.

        The outputs are filled then, and the inputs may be used again.

        Parameters
        ----------
        inputs, outputs : one writable C-contiguous buffer per tensor (numpy array, memoryview,
            TensorBuffer), in a sequence; an array counts as the sequence of its rows. int8, or
            float32, which is cast to int8 by the fix point on the way in (toward zero, without
            saturation) and converted on the way out. A buffer's shape does not matter: the first
            elements are taken, as many as the tensor has
        enable_dynamic_array : take shape and batch size from the buffers; the batch is the same
            in all of them

        Returns
        -------
        (job id, status), to be given to `wait`; status 0 is good

        Raises
        ------
        TypeError
            An argument is not a sequence of buffers.
        ValueError
            A buffer is missing, read-only, too small, or has another type or order.
        RuntimeError
            The job failed, or the interpreter ends.

        Warns
        -----
        RuntimeWarning
            Once per subgraph: a float32 value does not fit into int8, and wraps around.
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
            text = "float32 values beyond int8 wrap around, as aarch64 casts them: clip them"
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
        """Return 0: `execute_async` has done the job, if there ever was one.

        On an asynchronous device, block until the job is done.

        Raises
        ------
        TypeError
            `job_id` is not a pair of integers.
        RuntimeError
            On an asynchronous device: the job is unknown or was waited for already, it failed, it
            was started by the process that this one was forked from, or the interpreter ends.
        """
        number = _job_number(job_id)
        return self._join(number) if self._asynchronous else 0

    def _join(self, number: int) -> int:
        if self._device is not device.current():
            self._notice_fork()
        with self._lock:
            pending = self._jobs.pop(number, None)
        if pending is None:
            raise DpuError(f"job {number} is unknown to this runner, or was waited for already")
        try:
            self._await(pending)
        except BaseException:  # Ctrl-C: the job goes on, and can be waited for again
            with self._lock:
                self._jobs[number] = pending
            raise
        pending.check()
        return 0

    def _await(self, job: DpuJob) -> None:
        """Block until a job is done."""
        ends = self._device.ended and not job.is_done
        if ends and not threading.current_thread().daemon:  # a daemon stays where it is, as ever
            raise DpuError("the interpreter ends: the job will not be done any more")
        job.join()

    def __repr__(self) -> str:
        return f"vart::Runner@{id(self):#x}"

    def __getattr__(self, name: str) -> Any:
        raise not_emulated(f"vart.{type(self).__name__}", name)


class TensorBuffer(np.ndarray):
    """A buffer for one tensor: the buffer protocol and `get_tensor`, as in VART.

    An array for C (numpy.asarray, memoryview), as before Python 3.12 only types written in C can
    offer a buffer; for Python all other ways to use it as an array are closed.
    """

    def get_tensor(self) -> xir.Tensor:
        """The tensor that the buffer is for."""
        return super().__getattribute__("_tensor")

    def __getattribute__(self, name: str) -> Any:
        if name != "get_tensor" and not name.startswith("__"):
            raise AttributeError(f"'vart.TensorBuffer' object has no attribute {name!r}")
        return super().__getattribute__(name)

    def _refuse(self, *_: object) -> Any:
        raise TypeError("a vart.TensorBuffer is a buffer, not an array: use numpy.asarray on it")

    def _refuse_copy(self, *_: object) -> Any:
        raise TypeError("a vart.TensorBuffer cannot be copied or pickled: use numpy.array on it")

    __len__ = __iter__ = __getitem__ = __setitem__ = _refuse
    __copy__ = __deepcopy__ = __reduce_ex__ = _refuse_copy
    __array_ufunc__ = None  # type: ignore[assignment]
    __eq__, __hash__ = object.__eq__, object.__hash__  # type: ignore[assignment]

    def __dir__(self) -> list[str]:
        return [*dir(object), "get_tensor"]

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        """As VART's `TensorBuffer::to_string`."""
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
        """As `Runner.create_runner`."""
        _check_subgraph(subgraph, mode)
        return RunnerExt._of(subgraph)

    def get_inputs(self) -> list[TensorBuffer]:
        """New buffers for the inputs, in the order of `get_input_tensors`."""
        return [_tensor_buffer(tensor) for tensor in self._executable.inputs]

    def get_outputs(self) -> list[TensorBuffer]:
        """New buffers for the outputs, in the order of `get_output_tensors`."""
        return [_tensor_buffer(tensor) for tensor in self._executable.outputs]


class _GraphRunner(RunnerExt):
    _done = (0, 0)  # as VART's graph_runner_imp.cpp has it


def _check_subgraph(subgraph: Any, mode: str) -> None:
    if not isinstance(subgraph, xir.Subgraph):
        raise DpuError(f"a runner is made from an xir.Subgraph, not {_type(subgraph)}")
    if not isinstance(mode, str):
        raise TypeError(f"a runner's mode is a str, not {_type(mode)}")
    if mode not in ("", "run"):
        raise DpuError(f"runner mode {mode!r} is not emulated; only 'run' is")
    kind = device_of(subgraph)
    if kind not in KINDS:
        what = f"subgraph {subgraph.get_name()!r} has the device {kind or 'none'}"
        raise DpuError(f"{what}; a runner is made from one of the root's children with device DPU")


def _type(value: object) -> str:
    return type(value).__name__


def _job_number(job_id: Any) -> int:
    try:
        number, _ = map(operator.index, job_id)
    except (TypeError, ValueError):
        text = f"wait() takes the pair that execute_async returned, not {job_id!r}"
        raise TypeError(text) from None
    return number


# ---- buffers -------------------------------------------------------------------------------------


def _buffers(
    buffers: Sequence[Any], tensors: Sequence[xir.Tensor], what: str, dynamic: bool
) -> list[Array]:
    """The buffers as arrays that share their memory, after checking each against its tensor."""
    if isinstance(buffers, (str, bytes)) or not isinstance(buffers, (Sequence, np.ndarray)):
        raise TypeError(f"{what}s must be a sequence of buffers, not {_type(buffers)}")
    if len(buffers) != len(tensors):
        raise ValueError(f"{len(buffers)} {what} buffers for {len(tensors)} {what} tensors")
    return [
        _buffer(buffer, tensor, f"{what} buffer for {tensor.name!r}", dynamic)
        for buffer, tensor in zip(buffers, tensors, strict=True)
    ]


def _buffer(buffer: Any, tensor: xir.Tensor, name: str, dynamic: bool) -> Array:
    """A buffer's first elements, as many as the tensor has and in its shape.

    VART takes a buffer's address and its element type, and the rest from the tensor.
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
        raise ValueError(f"{name} is {array.dtype}, wanted {wanted}")
    if not view.c_contiguous:
        raise ValueError(f"{name} is not C-contiguous")
    if not dynamic:
        count = tensor.get_element_num()
        if array.size < count:
            raise ValueError(f"{name} has {array.size} elements, wanted {count}")
        return array.reshape(-1)[:count].reshape(tensor.dims)
    if array.ndim != tensor.ndim or list(array.shape[1:]) != tensor.dims[1:]:
        raise ValueError(f"{name} has shape {list(array.shape)}, wanted {tensor.dims}")
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


def _cast(arrays: list[Array], tensors: Sequence[xir.Tensor]) -> tuple[list[Array], str]:
    """Inputs in their tensors' types, and the name of one with values that do not fit, or "".

    float32 becomes int8 by `(int8_t)(value * 2^fix_point)` (VART's tensor_buffer.cpp), which
    truncates toward zero. Beyond int8's range C++ leaves the cast undefined. Here it is what
    aarch64's instructions give: the low byte of a saturated int32, 0 for NaN.
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
