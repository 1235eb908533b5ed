"""run.json: the results of a measurement, as `python -m tutelage.app.measure` writes them.

Times of windows are seconds since the measurement began; latencies are ms, power is W. Fields with
a default may be missing from a file, which earlier versions did not write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.results.figure import Figure, as_json
from tutelage.core.results.typed_json import (
    MismatchError,
    ResultsError,
    decode,
    json_value,
    read_results,
)
from tutelage.core.text import json_text

RUN_FILE = "run.json"
DONE, RUNNING = "done", "running"
"""States; others are "refused", "stopped", "failed" and "broken off"."""

_WHAT = "a measured run"


@dataclass(frozen=True)
class Concern:
    """Something that speaks against figures: a short name and a line for the reader."""

    name: str
    text: str


@dataclass(frozen=True)
class SensorWarning:
    """Something that speaks against a rail's readings, in one line that begins with its name."""

    rail: str
    text: str


@dataclass
class MachineFacts:
    """The machine: of `tutelage.board.system.board_facts`, with packages and the release."""

    board: str | None = None
    machine: str | None = None
    cpus: int | None = None
    image: str | None = None
    kernel: str | None = None
    python: str | None = None
    numpy: str | None = None
    opencv: str | None = None
    packages: dict[str, str | None] = field(default_factory=dict)
    release: str | None = None

    @property
    def place(self) -> str:
        """The board's model, else the architecture."""
        return self.board or self.machine or "an unknown machine"


@dataclass(frozen=True)
class Pace:
    """What jobs take their time from: measured is True of a DPU only; text, for the reader."""

    measured: bool
    text: str


@dataclass(frozen=True)
class Clocks:
    """Governor of the CPUs, their highest clock, the DPU's clock by the profile, its cores."""

    governor: str | None = None
    highest_mhz: float | None = None
    dpu_nominal_mhz: float | None = None
    dpu_cores: int | None = None


@dataclass(frozen=True)
class ModelFacts:
    """The model: where it is, what it was compiled for, its input, and what it was made from."""

    name: str
    target: str
    path: str = ""
    dpu: str | None = None
    input: list[int] = field(default_factory=list)
    sha256: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFacts:
    """Where the frames come from, and how many different ones there are."""

    source: str
    count: int


@dataclass
class PowerSource:
    """What watts are read from; source is "none" where nothing is, and reason says why."""

    source: str = "none"
    reason: str = ""
    rails: list[str] = field(default_factory=list)
    total_rail: str | None = None
    doubts: list[SensorWarning] = field(default_factory=list)


@dataclass(frozen=True)
class IdleResults:
    """The whole board's power at rest, from start_s to end_s."""

    watts: Figure
    start_s: float = 0.0
    end_s: float = 0.0
    concerns: list[Concern] = field(default_factory=list)


@dataclass(frozen=True)
class Percentiles:
    """Latencies that 50, 90 and 99 % of the frames do not exceed, ms."""

    p50: Figure = field(default_factory=Figure)
    p90: Figure = field(default_factory=Figure)
    p99: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class Latencies(Percentiles):
    """Latencies of a window, ms; the greatest one has no interval."""

    mean: Figure = field(default_factory=Figure)
    max: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class FrameCounts:
    """Frames that were given out within a window."""

    classified: int = 0
    failed: int = 0


@dataclass(frozen=True)
class PowerResults:
    """Power and energy in a window, of the whole board.

    Attributes
    ----------
    source, reason, total_rail, doubts : as in `PowerSource`
    watts, joules_per_frame, fps_per_watt : also above `idle`, the power at rest
    samples, rate_hz, jitter_ms, missed : how the sampler kept its times
    rails : figures of every rail
    """

    watts: Figure = field(default_factory=Figure)
    joules_per_frame: Figure = field(default_factory=Figure)
    fps_per_watt: Figure = field(default_factory=Figure)
    watts_above_idle: Figure = field(default_factory=Figure)
    joules_per_frame_above_idle: Figure = field(default_factory=Figure)
    fps_per_watt_above_idle: Figure = field(default_factory=Figure)
    source: str = "none"
    reason: str = ""
    total_rail: str | None = None
    doubts: list[SensorWarning] | None = None
    rails: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: int | None = None
    rate_hz: float | None = None
    jitter_ms: dict[str, float] | None = None
    missed: int | None = None
    idle: Figure = field(default_factory=Figure)


@dataclass(frozen=True, kw_only=True)
class StepWindow:
    """A step of the plan, and when its window was.

    Attributes
    ----------
    scenario, threads, qps, bound_ms, repetition : of `tutelage.app.measure.plan.Step`
    start_s, end_s : the window
    """

    name: str
    scenario: str
    threads: int
    qps: float = 0.0
    bound_ms: float | None = None
    repetition: int = 1
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class WindowFigures:
    """The figures of a measured window.

    Attributes
    ----------
    frames : that were given out within it
    sections : into which the window was cut for the intervals; None: too few frames
    fps : frames per second
    stages_ms : p50 and p99 of each stage of the pipeline
    drift : share by which the window's second half was faster; None where that is chance
    """

    frames: FrameCounts = field(default_factory=FrameCounts)
    sections: int | None = None
    fps: Figure
    latency_ms: Latencies
    stages_ms: dict[str, dict[str, float | None]] = field(default_factory=dict)
    drift: float | None = None
    power: PowerResults


@dataclass(frozen=True, kw_only=True)
class StepResults(WindowFigures, StepWindow):
    """A step with the figures of its window.

    Attributes
    ----------
    dpu_utilisation : share of the window in which the DPU's cores had jobs
    realtime : of `tutelage.board.realtime.Realtime.report`, where the emulation was paced
    conditions : least, mean and most of each reading of the machine's state
    concerns : what speaks against the figures
    """

    dpu_utilisation: float | None = None
    realtime: dict[str, Any] | None = None
    conditions: dict[str, dict[str, float] | None] = field(default_factory=dict)
    concerns: list[Concern] = field(default_factory=list)


@dataclass(kw_only=True)
class Outcome:
    """How a measurement or a comparison ended: what its file has even where it was refused."""

    state: str
    error: str | None = None
    started: str = ""


@dataclass(kw_only=True)
class RunResults(Outcome):
    """All of run.json.

    Attributes
    ----------
    state, error : how it ended, and why where not as planned
    started, machine_clock : time (ISO 8601) as whoever started it knows it, and by the machine
    seconds : that it took
    provider : what runs the model
    emulation : whether that is the emulation
    realtime : board whose pace the emulation keeps
    phases : lengths of the plan's phases, s
    accepted : what was measured in spite of
    power : where watts come from
    idle : the baseline "before" and "after"
    notes : for the reader
    """

    started: str
    provider: str
    emulation: bool
    machine: MachineFacts
    model: ModelFacts
    steps: list[StepResults]
    machine_clock: str | None = None
    seconds: float | None = None
    realtime: str | None = None
    pace: Pace | None = None  # earlier versions had none
    overlay: dict[str, str | None] | None = None
    clocks: Clocks = field(default_factory=Clocks)
    images: ImageFacts | None = None
    in_flight: int | None = None
    phases: dict[str, float] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    power: PowerSource = field(default_factory=PowerSource)
    idle: dict[str, IdleResults | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def on_dpu(self) -> bool:
        """Whether the times are those of a DPU, which no emulation's are."""
        return not self.emulation and (self.pace is None or self.pace.measured)


def read_run(path: Path) -> RunResults:
    """Return a run.json, given itself or by its directory; raises ResultsError."""
    return read_results(RunResults, path / RUN_FILE if path.is_dir() else path, _WHAT)


def read_outcome(path: Path) -> Outcome:
    """Return how the measurement or comparison of a file ended; raises ResultsError."""
    return read_results(Outcome, path, "results")


def run_table(text: str, name: str) -> dict[str, Any]:
    """Return a run.json as it is, whose state and error are known to be well formed.

    For files of a measurement that was refused or broke off, which may have nothing else.

    Parameters
    ----------
    name : of the file, for the message

    Raises
    ------
    ResultsError
        It has no state.
    """
    try:
        table: dict[str, Any] = json_value(text)
        decode(Outcome, table)
    except MismatchError as error:
        raise ResultsError(f"{name}: not {_WHAT}: {error}") from error
    return table


def run_text(run: RunResults) -> str:
    """Return the text of run.json; what the model brings with it stays as it is."""
    table = as_json(run)
    shown = {key: value if key == "model" else rounded(value) for key, value in table.items()}
    return json_text(shown, indent=2) + "\n"


def rounded(value: Any) -> Any:
    """Return figures with the digits that any of them can have meaning for; no zero has a sign."""
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value
