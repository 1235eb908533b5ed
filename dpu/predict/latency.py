"""How long a network takes on a board's DPU: a model of few physical parameters, fitted.

A core takes for a job what its stages take (`tutelage.dpu.predict.stage_times`), or where a file
has DPU code, what that takes in simulation (`tutelage.dpu.predict.code`). Around a job the A53
prepares the image and takes the result:

    cpu = frame_us + pixel_ns * values of the input

One thread does both in turn. Many threads keep all cores busy, or else the A53s are what binds.

The parameters but the A53's two are fitted by `python -m tutelage.host.latency.fit` to the speed
that AMD published for image classifiers (Vitis AI 2.5), end to end. A core's costs are in
`dpu/isa/costs.toml`, for all boards; the others are in `dpu/predict/fitted/<board>.toml` with the
error on families of networks that were left out. Nothing here was measured by this project: a
prediction is as good as those errors. What the published figures cannot tell is left out: CPU ops
within a network, and post-processing beyond a classifier's.

The emulation's runners pace themselves by it (`board_pace`).
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
"""Those of a board's own file."""


@dataclass(frozen=True)
class PythonCost:
    """What a frame costs an application in Python, in place of AMD's programs in C++.

    Attributes
    ----------
    frame_us : of one thread, beside the job; pre-processing is not in it
    lock_us : the part of it under the interpreter's lock, which all threads share: it caps what
        Python can feed at 1e6 / lock_us frames per second
    """

    frame_us: float
    lock_us: float


PYTHON_COSTS = tuple(field.name for field in fields(PythonCost))


@dataclass(frozen=True)
class Board:
    """What a prediction needs to know of a board.

    Attributes
    ----------
    dpu_name, clock_mhz, cores : of its DPU
    fingerprints : of the files that its DPU runs, as far as they are known
    cpus : of its processor
    parameters, python : fitted to it
    error : of networks that were left out of the fit, published time / predicted time: "low" and
        "high" of one thread and of many, as `[one, many]`
    mean_error : of their frames per second, likewise, as a share
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
        """Whether its DPU runs files of this fingerprint; where none is known, by its name."""
        if self.fingerprints:
            return fingerprint in self.fingerprints
        return dpu_name(fingerprint) == self.dpu_name


@dataclass(frozen=True)
class LayerTime:
    """The time of a layer, with what is fused to it, on one core that works alone.

    Attributes
    ----------
    seconds : all of it
    computing, parameters, maps, start : seconds that computing, LOADs of parameters, LOADs and
        SAVEs of maps, and what nothing hides would take alone; all but the last overlap
    """

    stage: Stage
    seconds: float
    computing: float
    parameters: float
    maps: float
    start: float

    @property
    def bound(self) -> str:
        """What takes the most of the layer's time: "array", "parameters", "maps" or "start"."""
        shares = {
            "array": self.computing, "parameters": self.parameters, "maps": self.maps,
            "start": self.start,
        }  # fmt: skip
        return max(shares, key=lambda name: shares[name])


def input_values(operations: Sequence[Operation]) -> int:
    """Return the values of a network's inputs."""
    return sum(math.prod(o.output) for o in operations if o.kind == INPUT)


def speeds(
    counts: Counts,
    values: Array,
    board: Board,
    threads: int | None = None,
    python: bool = False,
    longer: float = 1.0,
) -> Array:
    """Return the frames per second of networks, end to end.

    One thread prepares, waits for its core and takes the result, in turn. With more, what binds
    first: the threads, the cores (which then share the memory), the A53s, or Python's lock.

    Parameters
    ----------
    counts, values : of the networks: their stages and the values of their inputs
    threads : None: as many as help
    python : through an application in Python, its pre-processing not counted
    longer : how many times as long as its stages a job takes
    """
    given, hertz = board.parameters, board.clock_mhz * 1e6
    cpu = 1e-6 * given.frame_us + 1e-9 * given.pixel_ns * values
    if python:
        cpu = np.full(len(values), 1e-6 * board.python.frame_us)
    if threads == 1:
        return np.asarray(1 / (longer * counts.job_cycles(given) / hertz + cpu))
    busy = board.cores if threads is None else min(board.cores, threads)
    with np.errstate(divide="ignore"):  # without DPU work or an A53's part that does not bind
        rate = counts.jobs_per_cycle(given, busy) * hertz / longer
        limits = [rate, board.cpus / cpu]
    if python:
        limits.append(np.full(len(values), 1e6 / board.python.lock_us))
    if threads is not None:
        # So many never bind; a number without bound may be none that a float holds.
        limits.append(min(threads, 1 << 20) / (busy / rate + cpu))
    return np.asarray(np.min(limits, 0))


@dataclass(frozen=True)
class Prediction:
    """What a network is predicted to take on a board.

    Attributes
    ----------
    board : on which
    operations : the network's, those of the CPU included
    stages : what a core does for it, in order
    fingerprint : of the DPU that the network is compiled for, None for none
    code_cycles : of one job by the file's own DPU code, simulated for a core that works alone; None
        without code. All times but those of `layers` are then of the code. Other cores slow it as
        they slow the stages
    """

    board: Board
    operations: list[Operation]
    stages: list[Stage]
    fingerprint: int | None = None
    code_cycles: float | None = None

    @property
    def layer_model(self) -> Prediction:
        """The prediction without the file's code, by its layers alone."""
        return replace(self, code_cycles=None)

    @property
    def misfit(self) -> str:
        """That the network is compiled for another DPU than the board's; "" where it is not."""
        board, number = self.board, self.fingerprint
        if number is None or board.runs(number):
            return ""
        known = " or ".join(f"{own:#x}" for own in board.fingerprints)
        return (
            f"compiled for {describe(number)}: does not run on {board.name}, whose DPU is "
            f"{board.dpu_name}{f' ({known})' if known else ''}"
        )

    @cached_property
    def counts(self) -> Counts:
        """The stages as arrays."""
        return Counts([self.stages])

    @property
    def job_seconds(self) -> float:
        """Of the DPU for one image, on one core that works alone."""
        return self._longer * self._layer_cycles / self._hertz

    @property
    def dpu_fps(self) -> float:
        """Images per second of all cores, which share the memory; the A53s' part not counted."""
        rate = self.counts.jobs_per_cycle(self.board.parameters, self.board.cores)
        return float(rate[0]) * self._hertz / self._longer

    @property
    def cpu_seconds(self) -> float:
        """Of an A53 for one image, before and behind the DPU."""
        given = self.board.parameters
        return 1e-6 * given.frame_us + 1e-9 * given.pixel_ns * input_values(self.operations)

    @property
    def latency_seconds(self) -> float:
        """Of one image, end to end, with one thread."""
        return self.job_seconds + self.cpu_seconds

    def fps(self, threads: int | None = None) -> float:
        """Frames per second, end to end, with so many threads; None: as many as help (`speeds`)."""
        return self._speed(threads)

    def python_fps(self, threads: int | None = None) -> float:
        """Frames per second that an application in Python reaches, as `fps`.

        In place of AMD's programs in C++ the threads run Python, whose interpreter lock they share
        (`PythonCost`): beyond `1 / lock_us` no thread and no core helps. Its two costs are those of
        the published MNIST network, whose application prepares the images before it is timed. A
        range is not known: DenseNetX, the other network published so, is predicted within 8 %
        (one thread) and 15 % (many).
        """
        return self._speed(threads, True)

    def _speed(self, threads: int | None, python: bool = False) -> float:
        values = np.array([float(input_values(self.operations))])
        return float(speeds(self.counts, values, self.board, threads, python, self._longer)[0])

    def fps_range(self, threads: int | None = None) -> tuple[float, float]:
        """Lowest and highest `fps` by the errors of the networks left out of the fit.

        The range of a board is from the lowest to the highest of these errors, so that all of its
        own networks lie within. It is not a confidence interval, but was tested as one: of the
        published values at least nine in ten lie within the range that all other networks of their
        board give (`python -m tutelage.host.latency.fit`).
        """
        found, column = self.fps(threads), 0 if threads == 1 else 1
        return found / self.board.error["high"][column], found / self.board.error["low"][column]

    def mean_error(self, threads: int | None = None) -> float:
        """Mean error of the `fps` of the networks left out of the fit, as a share."""
        return self.board.mean_error[0 if threads == 1 else 1]

    def latency_range(self) -> tuple[float, float]:
        """Least and most `latency_seconds`, as `fps_range`."""
        slowest, fastest = self.fps_range(1)
        return 1 / fastest, 1 / slowest

    def layers(self) -> list[LayerTime]:
        """Each stage of the DPU with its time and what binds it."""
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
        """Operations that the CPU computes and that no figure here contains."""
        return [o for o in self.operations if not o.on_dpu and o.kind != INPUT]

    @property
    def _hertz(self) -> float:
        return self.board.clock_mhz * 1e6

    @property
    def _longer(self) -> float:
        """How many times as long as by its stages a job takes by the file's code."""
        stages = self._layer_cycles
        return 1.0 if self.code_cycles is None or not stages else self.code_cycles / stages

    @property
    def _layer_cycles(self) -> float:
        """Cycles of a job's stages on a core that works alone."""
        return float(self.counts.job_cycles(self.board.parameters)[0])


def predict(
    operations: list[Operation], board: str | Board = DEFAULT_BOARD, fingerprint: int | None = None
) -> Prediction:
    """Predict a network that is given as operations; a DenseNet-121 takes a few milliseconds.

    Parameters
    ----------
    fingerprint : of the DPU that they are compiled for, whose array is then taken; None: the
        board's own

    Raises
    ------
    DpuError
        The board is unknown, or nothing is fitted to it.
    """
    known = board if isinstance(board, Board) else read_board(board)
    array = known.array if fingerprint is None else array_of(fingerprint)
    return Prediction(known, operations, stages(operations, array), fingerprint)


def predict_graph(graph: Graph, board: str | Board = DEFAULT_BOARD) -> Prediction:
    """Predict an .xmodel; a compiled one with its array, and by its DPU code where it has any.

    Raises
    ------
    DpuError
        As `operations_of_graph`, `predict` and `code_cycles`.
    """
    fingerprint = next(iter(fingerprints_of(graph)), None)
    found = predict(operations_of_graph(graph), board, fingerprint)
    if fingerprint is None:
        return found
    return replace(found, code_cycles=code_cycles(graph, found.board.parameters.costs))


def operations_of_graph(graph: Graph) -> list[Operation]:
    """The operations of an .xmodel; a quantised one's are shared out as by the compiler here.

    Raises
    ------
    XmodelError
        The model contradicts itself, or cannot be compiled.
    UnsupportedError
        It is compiled for another DPU than a DPUCZDX8G.
    """
    refuse_foreign(graph)
    from tutelage.dpu.compiler.emulation import on_cpu

    compiled = graph.get_root_subgraph().toposort_child_subgraph()
    return operations_of(layers_of(graph), () if compiled else on_cpu(graph))


def job_seconds(subgraph: Subgraph, board: Board) -> float:
    """Return the layer model's seconds of one core, alone, for one job of a DPU subgraph.

    Parameters
    ----------
    subgraph : of a compiled file; one of the CPU takes 0

    Raises
    ------
    XmodelError
        The model contradicts itself.
    """
    with contradictions(subgraph.get_name()):
        layers = layers_of(subgraph.get_graph())
        others = {layer.name for layer in layers if not subgraph.has_op(layer.op)}
        fingerprint = fingerprint_of(subgraph)
        return predict(operations_of(layers, others), board, fingerprint).job_seconds


@dataclass(frozen=True)
class BoardPace:
    """The time of jobs on a board, for `tutelage.dpu.runtime.vart.set_pace`: `job_seconds`.

    It is that of the layer model, also where a file has DPU code.
    It is the time of a core that works alone. Cores that share the memory are predicted to be
    slower (`Prediction.fps`), which the emulation does not show.
    """

    board: Board

    @property
    def cores(self) -> int:
        """Cores of the board's DPU."""
        return self.board.cores

    def __call__(self, subgraph: Subgraph) -> float:
        return job_seconds(subgraph, self.board)


def board_pace(board: str) -> BoardPace:
    """The pace of a board by its profile's file name, such as "zcu104".

    Raises
    ------
    DpuError
        As `read_board`, or the profile lacks the clock or the processor's cores: the pace is that
        of the board's own overlay.
    """
    return BoardPace(read_board(board, published=False))


def read_board(board: str, published: bool = True) -> Board:
    """Read a board by its profile's file name, such as "zcu104", with what is fitted to it.

    Its DPU and processor are those of the profile, or where it lacks the clock or the processor's
    cores, those that the published figures are of.

    Parameters
    ----------
    published : False: where the profile lacks them, there is no such board

    Raises
    ------
    DpuError
        There is none of that name, its profile is broken or lacks the clock or the processor's
        cores with nothing published either, or nothing is fitted to it.
    """
    profile, path, costs = load_profile(board), FITTED / f"{board}.toml", fitted_costs()
    needed = {"dpu.clock_mhz": profile.dpu_clock_mhz, "cpu.cores": profile.cpu_cores}
    missing = [key for key, value in needed.items() if value is None]
    if missing and not (published and path.exists()):
        raise DpuError(
            f"{profile.file}: lacks {', '.join(missing)}, without which nothing can be predicted"
        )
    if not path.exists():
        raise DpuError(f"nothing is fitted to the board {board!r} ({path.name})")
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
