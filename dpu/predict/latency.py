"""Latency of a network on a board's DPU: a fitted model with few physical parameters.

The time of a job on a core is that of its stages (`tutelage.dpu.predict.stage_times`) or, if a
file has DPU code, that of the simulated code (`tutelage.dpu.predict.code`). Before and after a job
the A53 prepares the image and processes the result:

    cpu = frame_us + pixel_ns * values of the input

One thread does both in turn. Many threads keep all cores busy, unless the A53s are the bottleneck.

All parameters but the A53's two are fitted by `python -m tutelage.host.latency.fit` to the
end-to-end speeds of image classifiers that AMD published (Vitis AI 2.5). A core's costs are in
`dpu/isa/costs.toml`, for all boards; the others are in `dpu/predict/fitted/<board>.toml` with the
error on families of networks that were left out. None of this was measured by this project: a
prediction is only as good as those errors. Effects that the published figures do not show are
omitted: CPU ops within a network, and post-processing beyond that of a classifier.

The emulation's runners use it to pace themselves (`board_pace`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.board_profile import DEFAULT_BOARD, load_profile
from tutelage.core.errors import DpuError, contradictions
from tutelage.core.fingerprint import (
    DpuArray,
    array_named,
    array_of,
    describe,
    dpu_name,
    fingerprint_of,
    fingerprints_of,
    refuse_foreign,
)
from tutelage.core.fixed_point import Array
from tutelage.core.toml_file import read_toml
from tutelage.dpu.inspect.layers import INPUT, layers_of
from tutelage.dpu.isa.costs import fitted_costs
from tutelage.dpu.predict.code import code_cycles
from tutelage.dpu.predict.operations import Operation, operations_of
from tutelage.dpu.predict.stage_times import Counts, Parameters
from tutelage.dpu.predict.traffic import Stage, stages
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.subgraph import Subgraph

FITTED = Path(__file__).resolve().parent / "fitted"

BOARD_PARAMETERS = tuple(field.name for field in fields(Parameters) if field.name != "costs")
"""Names of the parameters in a board's own file."""


@dataclass(frozen=True)
class PythonCost:
    """CPU cost of a frame in a Python application, instead of AMD's C++ programs.

    Attributes
    ----------
    frame_us : time of one thread besides the job, without pre-processing, us
    lock_us : the part of it under the interpreter's lock, shared by all threads, us: it limits
        Python to 1e6 / lock_us frames per second
    """

    frame_us: float
    lock_us: float


PYTHON_COSTS = tuple(field.name for field in fields(PythonCost))


@dataclass(frozen=True)
class Board:
    """The properties of a board that a prediction needs.

    Attributes
    ----------
    dpu_name, clock_mhz, cores : of its DPU
    fingerprints : fingerprints of files that its DPU runs, if known
    cpus : number of its processor's cores
    parameters, python : parameters fitted to it
    error : published time / predicted time of networks that were left out of the fit: "low" and
        "high", each as `[one thread, many threads]`
    mean_error : mean relative error of their frames per second, likewise
    """

    name: str
    clock_mhz: float
    cores: int
    cpus: int
    parameters: Parameters
    python: PythonCost
    error: dict[str, list[float]]
    dpu_name: str
    fingerprints: tuple[int, ...] = ()
    mean_error: tuple[float, float] = (0.0, 0.0)

    @property
    def array(self) -> DpuArray:
        """The array of one of its cores."""
        return array_named(self.dpu_name)

    def runs(self, fingerprint: int) -> bool:
        """Return whether its DPU runs files of this fingerprint; by name if none is known."""
        if self.fingerprints:
            return fingerprint in self.fingerprints
        return dpu_name(fingerprint) == self.dpu_name


@dataclass(frozen=True)
class LayerTime:
    """The time of a layer and its fused operations on one core, without other active cores.

    Attributes
    ----------
    stage : the layer and its operations
    seconds : total time, s
    computing, parameters, maps, start : time for computing, for loading parameters, for loading
        and saving maps, and for what does not overlap with anything, s; all but the last overlap
    """

    stage: Stage
    seconds: float
    computing: float
    parameters: float
    maps: float
    start: float

    @property
    def bound(self) -> str:
        """The largest part of the layer's time: "array", "parameters", "maps" or "start"."""
        shares = {
            "array": self.computing, "parameters": self.parameters, "maps": self.maps,
            "start": self.start,
        }  # fmt: skip
        return max(shares, key=lambda name: shares[name])


def input_values(operations: Sequence[Operation]) -> int:
    """Return the number of values of a network's inputs."""
    return sum(math.prod(o.output) for o in operations if o.kind == INPUT)


def speeds(
    counts: Counts,
    values: Array,
    board: Board,
    threads: int | None = None,
    python: bool = False,
    longer: float = 1.0,
) -> Array:
    """Return the end-to-end frames per second of networks.

    One thread prepares the image, waits for its core and processes the result, in turn. With more
    threads the speed is limited by whichever binds first: the threads, the cores (which then share
    the memory), the A53s, or Python's lock.

    Parameters
    ----------
    counts, values : stages of the networks, and numbers of values of their inputs
    threads : number of threads; None for as many as help
    python : through a Python application, without its pre-processing
    longer : ratio of a job's time to that of its stages
    """
    given, hertz = board.parameters, board.clock_mhz * 1e6
    cpu = 1e-6 * given.frame_us + 1e-9 * given.pixel_ns * values
    if python:
        cpu = np.full(len(values), 1e-6 * board.python.frame_us)
    if threads == 1:
        return np.asarray(1 / (longer * counts.job_cycles(given) / hertz + cpu))
    busy = board.cores if threads is None else min(board.cores, threads)
    with np.errstate(divide="ignore"):  # a network without DPU work, or with none for the A53
        rate = counts.jobs_per_cycle(given, busy) * hertz / longer
        limits = [rate, board.cpus / cpu]
    if python:
        limits.append(np.full(len(values), 1e6 / board.python.lock_us))
    if threads is not None:
        # 2^20 threads never bind; an unbounded integer might overflow a float.
        limits.append(min(threads, 1 << 20) / (busy / rate + cpu))
    return np.asarray(np.min(limits, 0))


@dataclass(frozen=True)
class Prediction:
    """The predicted times of a network on a board.

    Attributes
    ----------
    board : board that runs it
    operations : all operations of the network, including those of the CPU
    stages : the work of a core for it, in order
    fingerprint : fingerprint of the DPU that the network is compiled for, None for none
    code_cycles : simulated cycles of one job of the file's own DPU code without other active cores,
        None without code. If given, it determines all times except those of `layers`. Other cores
        slow it down as they slow down the stages
    """

    board: Board
    operations: list[Operation]
    stages: list[Stage]
    fingerprint: int | None = None
    code_cycles: float | None = None

    @property
    def layer_model(self) -> Prediction:
        """The prediction by the layer model alone, without the file's code."""
        return replace(self, code_cycles=None)

    @property
    def misfit(self) -> str:
        """A message if the network is compiled for another DPU than the board's, else ""."""
        board, number = self.board, self.fingerprint
        if number is None or board.runs(number):
            return ""
        known = " or ".join(f"{own:#x}" for own in board.fingerprints)
        return (
            f"compiled for {describe(number)}; does not run on {board.name}, whose DPU is "
            f"{board.dpu_name}{f' ({known})' if known else ''}"
        )

    @cached_property
    def counts(self) -> Counts:
        """The stages as arrays."""
        return Counts([self.stages])

    @property
    def job_seconds(self) -> float:
        """Time of one image on one DPU core without other active cores, s."""
        return self._longer * self._layer_cycles / self._hertz

    @property
    def dpu_fps(self) -> float:
        """Images per second of all DPU cores, which share the memory, without the A53s' work."""
        rate = self.counts.jobs_per_cycle(self.board.parameters, self.board.cores)
        return float(rate[0]) * self._hertz / self._longer

    @property
    def cpu_seconds(self) -> float:
        """Time of an A53 for one image, before and after the DPU, s."""
        given = self.board.parameters
        return 1e-6 * given.frame_us + 1e-9 * given.pixel_ns * input_values(self.operations)

    @property
    def latency_seconds(self) -> float:
        """End-to-end time of one image with one thread, s."""
        return self.job_seconds + self.cpu_seconds

    def fps(self, threads: int | None = None) -> float:
        """Return the end-to-end frames per second (`speeds`); None for as many threads as help."""
        return self._speed(threads)

    def python_fps(self, threads: int | None = None) -> float:
        """Return the frames per second of a Python application, as `fps`.

        Instead of AMD's C++ programs the threads run Python and share its interpreter lock
        (`PythonCost`): beyond `1 / lock_us` neither threads nor cores help. The two costs are those
        of the published MNIST network, whose application prepares its images before timing starts.
        A range is not known: DenseNetX, the other such published network, is predicted within 8 %
        (one thread) and 15 % (many).
        """
        return self._speed(threads, True)

    def _speed(self, threads: int | None, python: bool = False) -> float:
        values = np.array([float(input_values(self.operations))])
        return float(speeds(self.counts, values, self.board, threads, python, self._longer)[0])

    def fps_range(self, threads: int | None = None) -> tuple[float, float]:
        """Return the lowest and highest `fps`, by the errors of the networks left out of the fit.

        The range of a board spans the lowest to the highest of these errors, so it includes all of
        its own networks. It is not a confidence interval, but was tested as one: at least nine in
        ten of the published values are within the range given by all other networks of their
        board (`python -m tutelage.host.latency.fit`).
        """
        found, column = self.fps(threads), 0 if threads == 1 else 1
        return found / self.board.error["high"][column], found / self.board.error["low"][column]

    def mean_error(self, threads: int | None = None) -> float:
        """Return the mean relative error of `fps` for the networks left out of the fit."""
        return self.board.mean_error[0 if threads == 1 else 1]

    def latency_range(self) -> tuple[float, float]:
        """Return the least and greatest `latency_seconds`, as `fps_range`, s."""
        slowest, fastest = self.fps_range(1)
        return 1 / fastest, 1 / slowest

    def layers(self) -> list[LayerTime]:
        """Return each stage of the DPU with its time and what limits it."""
        counts, given, hertz = self.counts, self.board.parameters, self._hertz
        columns = (
            counts.stage_cycles(given),
            np.maximum(counts.computing_cycles(given), counts.of["fused"]),
            counts.parameter_cycles(given),
            counts.load_cycles(given) + counts.save_cycles(given),
            counts.start_cycles(given),
        )
        rows = (np.stack(columns, 1) / hertz).tolist()
        return [LayerTime(stage, *row) for stage, row in zip(self.stages, rows, strict=True)]

    @property
    def left_to_cpu(self) -> list[Operation]:
        """Operations that the CPU computes, which are not included in any figure."""
        return [o for o in self.operations if not o.on_dpu and o.kind != INPUT]

    @property
    def _hertz(self) -> float:
        return self.board.clock_mhz * 1e6

    @property
    def _longer(self) -> float:
        """Ratio of a job's time by the file's code to its time by the stages."""
        stages = self._layer_cycles
        return 1.0 if self.code_cycles is None or not stages else self.code_cycles / stages

    @property
    def _layer_cycles(self) -> float:
        """Cycles of a job's stages on a core without other active cores."""
        return float(self.counts.job_cycles(self.board.parameters)[0])


def predict(
    operations: list[Operation], board: str | Board = DEFAULT_BOARD, fingerprint: int | None = None
) -> Prediction:
    """Predict a network given as operations; takes a few milliseconds for a DenseNet-121.

    Parameters
    ----------
    fingerprint : fingerprint of the DPU that they are compiled for, whose array is used; None for
        the board's own

    Raises
    ------
    DpuError
        The board is unknown or has no fitted parameters.
    """
    known = board if isinstance(board, Board) else read_board(board)
    array = known.array if fingerprint is None else array_of(fingerprint)
    return Prediction(known, operations, stages(operations, array), fingerprint)


def predict_graph(graph: Graph, board: str | Board = DEFAULT_BOARD) -> Prediction:
    """Predict an .xmodel; a compiled one with its array, and by its DPU code if present.

    Raises
    ------
    DpuError
        As for `operations_of_graph`, `predict` and `code_cycles`.
    """
    fingerprint = next(iter(fingerprints_of(graph)), None)
    found = predict(operations_of_graph(graph), board, fingerprint)
    if fingerprint is None:
        return found
    return replace(found, code_cycles=code_cycles(graph, found.board.parameters.costs))


def operations_of_graph(graph: Graph) -> list[Operation]:
    """Return the operations of an .xmodel; a quantised one is partitioned as by the compiler.

    Raises
    ------
    XmodelError
        The model is inconsistent, or cannot be compiled.
    UnsupportedError
        It is compiled for a DPU other than a DPUCZDX8G.
    """
    refuse_foreign(graph)
    from tutelage.dpu.compiler.emulation import on_cpu

    compiled = graph.get_root_subgraph().toposort_child_subgraph()
    return operations_of(layers_of(graph), () if compiled else on_cpu(graph))


def job_seconds(subgraph: Subgraph, board: Board) -> float:
    """Return the layer model's time of one job of a DPU subgraph on one core, s.

    Parameters
    ----------
    subgraph : subgraph of a compiled file; one of the CPU takes 0

    Raises
    ------
    XmodelError
        The model is inconsistent.
    """
    with contradictions(subgraph.get_name()):
        layers = layers_of(subgraph.get_graph())
        others = {layer.name for layer in layers if not subgraph.has_op(layer.op)}
        fingerprint = fingerprint_of(subgraph)
        return predict(operations_of(layers, others), board, fingerprint).job_seconds


@dataclass(frozen=True)
class BoardPace:
    """The time of jobs on a board, for `tutelage.dpu.runtime.vart.set_pace`: `job_seconds`.

    It is that of the layer model, even if a file has DPU code, and assumes no other active
    core. Cores that share the memory are predicted to be slower (`Prediction.fps`), which the
    emulation does not reproduce.
    """

    board: Board

    @property
    def cores(self) -> int:
        """Number of cores of the board's DPU."""
        return self.board.cores

    def __call__(self, subgraph: Subgraph) -> float:
        return job_seconds(subgraph, self.board)


def board_pace(board: str) -> BoardPace:
    """Return the pace of a board, given its profile's file name, such as "zcu104".

    Raises
    ------
    DpuError
        As for `read_board`, or the profile lacks the clock or the processor's cores, since the
        pace is that of the board's own overlay.
    """
    return BoardPace(read_board(board, published=False))


def read_board(board: str, published: bool = True) -> Board:
    """Read a board, given its profile's file name, such as "zcu104", with its fitted parameters.

    DPU and processor are those of the profile or, if it lacks the clock or the processor's cores,
    those of the published figures.

    Parameters
    ----------
    published : whether the published figures may supply what the profile lacks

    Raises
    ------
    DpuError
        There is no such board, its profile is invalid, clock or processor's cores are neither in
        the profile nor published, or it has no fitted parameters.
    """
    profile, path, costs = load_profile(board), FITTED / f"{board}.toml", fitted_costs()
    needed = {"dpu.clock_mhz": profile.dpu_clock_mhz, "cpu.cores": profile.cpu_cores}
    missing = [key for key, value in needed.items() if value is None]
    if missing and not (published and path.exists()):
        raise DpuError(f"{profile.file}: lacks {', '.join(missing)}, which predictions need")
    if not path.exists():
        raise DpuError(f"board {board!r} has no fitted parameters ({path.name})")
    hardware: dict[str, Any] = {
        "clock_mhz": profile.dpu_clock_mhz, "cores": profile.dpu_cores, "cpus": profile.cpu_cores,
    }  # fmt: skip
    try:
        found = read_toml(path)
        if missing:
            hardware = found["published"]
        return Board(
            board, float(hardware["clock_mhz"]), int(hardware["cores"]), int(hardware["cpus"]),
            Parameters(costs, **_numbers(BOARD_PARAMETERS, found["parameters"])),
            PythonCost(**_numbers(PYTHON_COSTS, found["python"])),
            {side: [float(x) for x in found["left_out"][side]] for side in ("low", "high")},
            profile.dpu_name, tuple(profile.fingerprints), _mean_error(found["left_out"]),
        )  # fmt: skip
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise DpuError(f"{path}: {error!r}") from error


def _mean_error(left_out: dict[str, Any]) -> tuple[float, float]:
    one, many = left_out["mean_percent"]
    return float(one) / 100, float(many) / 100


def _numbers(names: Sequence[str], table: dict[str, Any]) -> dict[str, float]:
    return {name: float(table[name]) for name in names}
