"""How long a network takes on a board's DPU: a model of few physical parameters, fitted.

For each layer the time is that of the slower of two units that work side by side, and a start:

    computing = array_slack * cycles                   (dpu/predict/cycles.py, idle lanes included)
    moving    = transfer_cycles * LOADs and SAVEs + bytes / 32         (dpu/predict/traffic.py)
    layer     = max(computing, moving) + layer_cycles

`PORT_BYTES_PER_CYCLE` is the ports' width. Where both cores work they share it: a core's bytes
take 1 + u times as long, u being the part of the time in which the other one moves bytes. Around
a job the A53 prepares the image and takes the result:

    cpu = frame_us + pixel_ns * values of the input

One thread does both in turn. Many threads keep all cores busy, or else the A53s are what binds.

The five parameters are fitted by `python -m tutelage.host.latency.fit` to the speed that AMD
published for image classifiers (Vitis AI 2.5), end to end, and stand in
`dpu/predict/fitted/<board>.toml` with the error on families of networks that were left out. Nothing
here was measured by this project: a prediction is as good as those errors. What the published
figures cannot tell is left out: a job's own overhead (the fit gives it no more than a few
microseconds beside `layer_cycles` and `frame_us`), CPU ops within a network, and post-processing
beyond a classifier's.

The emulation's runners pace themselves by it (`board_pace`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

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
from tutelage.dpu.inspect.layers import layers_of
from tutelage.dpu.predict.cycles import PORT_BYTES_PER_CYCLE
from tutelage.dpu.predict.operations import Operation, operations_of
from tutelage.dpu.predict.traffic import Work, works
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.subgraph import Subgraph

FITTED = Path(__file__).resolve().parent / "fitted"


@dataclass(frozen=True)
class Parameters:
    """What is fitted.

    Attributes
    ----------
    array_slack : how much longer the array takes than by `tutelage.dpu.predict.cycles`
    transfer_cycles : of each LOAD and SAVE, beside its bytes
    layer_cycles : of each layer: its first transfers and its last ones, which hide behind nothing
    pixel_ns : of the A53, for each value of the input (resizing, mean, scale, int8)
    frame_us : of the A53, for each frame (starting the job, softmax and top 5)
    """

    array_slack: float
    transfer_cycles: float
    layer_cycles: float
    pixel_ns: float
    frame_us: float


@dataclass(frozen=True)
class Board:
    """What a prediction needs to know of a board.

    Attributes
    ----------
    dpu_name, clock_mhz, cores : of its DPU
    fingerprints : of the files that its DPU runs, as far as they are known
    cpus : of its processor
    parameters : fitted to it
    error : of networks that were left out of the fit, published time / predicted time: "low" and
        "high" of one thread and of many, as `[one, many]`
    """

    name: str
    clock_mhz: float
    cores: int
    cpus: int
    parameters: Parameters
    error: dict[str, list[float]]
    dpu_name: str
    fingerprints: tuple[int, ...] = ()

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
    """A layer's time on one core that works alone.

    Attributes
    ----------
    seconds : all of it
    computing, parameters, maps, start : seconds that the array needs, that moving parameters and
        maps takes, and that nothing hides; the first overlaps with the two after it
    """

    work: Work
    seconds: float
    computing: float
    parameters: float
    maps: float
    start: float

    @property
    def bound(self) -> str:
        """What decides the layer's time: "array", "parameters", "maps" or "start"."""
        moving = self.parameters + self.maps
        if self.start > max(self.computing, moving):
            return "start"
        if self.computing >= moving:
            return "array"
        return "parameters" if self.parameters >= self.maps else "maps"


class Counts:
    """A network's work as arrays with a value for each layer, so that times are quick."""

    def __init__(self, work: Iterable[Work]) -> None:
        rows = [
            (w.cycles, w.parameter_loads, w.parameter_bytes, w.map_transfers,
             w.loaded_bytes + w.stored_bytes)
            for w in work
        ]  # fmt: skip
        table = np.array(rows, np.float64).reshape(-1, 5)
        self.cycles, self.loads, self.parameter_bytes, self.transfers, self.map_bytes = table.T

    def layer_cycles(self, given: Parameters, slower: float = 1.0) -> Array:
        """Cycles of each layer, with bytes that take `slower` times as long as alone."""
        return np.asarray(
            np.maximum(
                given.array_slack * self.cycles,
                self.parameter_cycles(given, slower) + self.map_cycles(given, slower),
            )
            + given.layer_cycles
        )

    def parameter_cycles(self, given: Parameters, slower: float = 1.0) -> Array:
        """Cycles in which each layer's parameters are loaded."""
        moved = self.parameter_bytes * (slower / PORT_BYTES_PER_CYCLE)
        return np.asarray(given.transfer_cycles * self.loads + moved)

    def map_cycles(self, given: Parameters, slower: float = 1.0) -> Array:
        """Cycles in which each layer's maps are loaded and saved."""
        moved = self.map_bytes * (slower / PORT_BYTES_PER_CYCLE)
        return np.asarray(given.transfer_cycles * self.transfers + moved)

    def job_cycles(self, given: Parameters, cores: int = 1) -> float:
        """Cycles of one job while so many cores work on jobs of this network.

        The part of the time in which the other cores move bytes depends on the time itself. Their
        equation is solved by Newton's method, from below, where it converges for every network:
        only the solution itself is monotonic in the work.
        """
        alone = float(self.layer_cycles(given).sum())
        if cores == 1 or not alone:
            return alone
        moved = (self.parameter_bytes + self.map_bytes) / PORT_BYTES_PER_CYCLE
        moving, total, step = float(moved.sum()), alone, alone
        while step > 1e-12 * total:
            slower = 1 + (cores - 1) * moving / total
            cycles = self.layer_cycles(given, slower)
            waiting = cycles > given.array_slack * self.cycles + given.layer_cycles
            slope = (slower - 1) / total * float(moved[waiting].sum())
            step = (float(cycles.sum()) - total) / (1 + slope)
            total += step
        return total


@dataclass(frozen=True)
class Prediction:
    """What a network is predicted to take on a board.

    Attributes
    ----------
    board : on which
    operations : the network's, those of the CPU included
    works : what a core does for each operation of the DPU
    fingerprint : of the DPU that the network is compiled for, None for none
    """

    board: Board
    operations: list[Operation]
    works: list[Work]
    fingerprint: int | None = None

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
        """The works as arrays."""
        return Counts(self.works)

    @property
    def job_seconds(self) -> float:
        """Of the DPU for one image, on one core that works alone."""
        return self.counts.job_cycles(self.board.parameters) / self._hertz

    @property
    def dpu_fps(self) -> float:
        """Images per second of all cores, which share the memory; the A53s' part not counted."""
        cores = self.board.cores
        return cores * self._hertz / self.counts.job_cycles(self.board.parameters, cores)

    @property
    def cpu_seconds(self) -> float:
        """Of an A53 for one image, before and behind the DPU."""
        given = self.board.parameters
        values = sum(math.prod(o.output) for o in self.operations if o.kind == "input")
        return 1e-6 * given.frame_us + 1e-9 * given.pixel_ns * values

    @property
    def latency_seconds(self) -> float:
        """Of one image, end to end, with one thread."""
        return self.job_seconds + self.cpu_seconds

    def fps(self, threads: int | None = None) -> float:
        """Frames per second, end to end, with so many threads; None: as many as help.

        One thread prepares, waits for its core and takes the result, in turn. With more, what
        binds first: the threads, the cores (which then share the memory), or the A53s.
        """
        board, cpu = self.board, self.cpu_seconds
        if threads == 1:
            return 1 / self.latency_seconds
        busy = board.cores if threads is None else min(board.cores, threads)
        job = self.counts.job_cycles(board.parameters, busy) / self._hertz
        limits = [board.cpus / cpu]
        if job:
            limits.append(busy / job)
        if threads is not None:
            # So many never bind; a number without bound may be none that a float holds.
            limits.append(min(threads, 1 << 20) / (job + cpu))
        return min(limits)

    def fps_range(self, threads: int | None = None) -> tuple[float, float]:
        """Lowest and highest `fps` by the errors of the networks left out of the fit.

        The widest of them, so that all of them lie within: it is no confidence interval.
        """
        found, column = self.fps(threads), 0 if threads == 1 else 1
        return found / self.board.error["high"][column], found / self.board.error["low"][column]

    def latency_range(self) -> tuple[float, float]:
        """Least and most `latency_seconds`, as `fps_range`."""
        slowest, fastest = self.fps_range(1)
        return 1 / fastest, 1 / slowest

    def layers(self) -> list[LayerTime]:
        """Each layer of the DPU with its time and what binds it."""
        counts, given, hertz = self.counts, self.board.parameters, self._hertz
        columns = (
            counts.layer_cycles(given),
            given.array_slack * counts.cycles,
            counts.parameter_cycles(given),
            counts.map_cycles(given),
            np.full(len(self.works), given.layer_cycles),
        )
        rows = (np.stack(columns, 1) / hertz).tolist()
        return [LayerTime(work, *row) for work, row in zip(self.works, rows, strict=True)]

    @property
    def left_to_cpu(self) -> list[Operation]:
        """Operations that the CPU computes and that no figure here contains."""
        return [o for o in self.operations if not o.on_dpu and o.kind != "input"]

    @property
    def _hertz(self) -> float:
        return self.board.clock_mhz * 1e6


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
    return Prediction(known, operations, works(operations, array), fingerprint)


def predict_graph(graph: Graph, board: str | Board = DEFAULT_BOARD) -> Prediction:
    """Predict an .xmodel; a compiled one with the array that it is compiled for.

    Raises
    ------
    DpuError
        As `operations_of_graph` and `predict`.
    """
    fingerprint = next(iter(fingerprints_of(graph)), None)
    return predict(operations_of_graph(graph), board, fingerprint)


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
    """Predicted seconds of one core, alone, for one job of a DPU subgraph.

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

    It is the time of a core that works alone. Two cores that share the memory are predicted to be
    slower, by 1 % (YOLO v3) to 23 % (a small ResNet; `Prediction.fps`), which the emulation does
    not show.
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
        As `read_board`.
    """
    return BoardPace(read_board(board))


def read_board(board: str, fitted: bool = True) -> Board:
    """A board by its profile's file name, such as "zcu104", with what is fitted to it.

    Parameters
    ----------
    fitted : False: with neither, for the fit itself

    Raises
    ------
    DpuError
        There is none of that name, its profile is broken or lacks the clock or the processor's
        cores, or nothing is fitted to it.
    """
    profile = load_profile(board)
    needed = {"dpu.clock_mhz": profile.dpu_clock_mhz, "cpu.cores": profile.cpu_cores}
    missing = [key for key, value in needed.items() if value is None]
    clock, cpus = needed.values()
    if clock is None or cpus is None:
        raise DpuError(
            f"{profile.file}: lacks {', '.join(missing)}, without which nothing can be predicted"
        )
    parameters, errors = _fitted(board) if fitted else (_NONE, {})
    return Board(
        board, float(clock), profile.dpu_cores, int(cpus), parameters, errors, profile.dpu_name,
        tuple(profile.fingerprints),
    )  # fmt: skip


_NONE = Parameters(1.0, 0.0, 0.0, 0.0, 0.0)
"""Nothing but what the shapes tell."""


def _fitted(board: str) -> tuple[Parameters, dict[str, list[float]]]:
    path = FITTED / f"{board}.toml"
    if not path.exists():
        raise DpuError(f"nothing is fitted to the board {board!r} ({path.name})")
    try:
        found = read_toml(path)
        given = {field.name: float(found["parameters"][field.name]) for field in fields(Parameters)}
        errors = {side: [float(x) for x in found["left_out"][side]] for side in ("low", "high")}
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise DpuError(f"{path}: {error!r}") from error
    return Parameters(**given), errors
