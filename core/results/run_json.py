"""run.json: the results of a measurement, written by `python -m tutelage.app.measure`.

Window times are seconds since the start of the measurement; latencies are in ms, power is in W.
Fields with a default may be missing from files of earlier versions.
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
"""States of a run; the others are "refused", "stopped", "failed" and "broken off"."""

_WHAT = "a measured run"


@dataclass(frozen=True)
class Concern:
    """A reason to doubt figures.

    Attributes
    ----------
    name : short name, such as "hot"
    text : explanation, in one line
    """

    name: str
    text: str


@dataclass(frozen=True)
class SensorWarning:
    """A reason to doubt a rail's readings.

    Attributes
    ----------
    rail : name of the rail
    text : explanation, in one line that begins with the rail's name
    """

    rail: str
    text: str


@dataclass
class MachineFacts:
    """The machine that was measured.

    Attributes
    ----------
    board : the board's model in its device tree; None on a PC
    machine : architecture of the processor, such as "aarch64"
    cpus : number of processors
    image : name of the system in /etc/os-release
    kernel, python, numpy, opencv : versions
    packages : versions of further packages
    release : name of the deployed release; None without one
    """

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
        """The board's model, or else the architecture."""
        return self.board or self.machine or "an unknown machine"


@dataclass(frozen=True)
class Pace:
    """What determines the time of jobs.

    Attributes
    ----------
    measured : whether it is a DPU
    text : description
    """

    measured: bool
    text: str


@dataclass(frozen=True)
class Clocks:
    """The clocks of CPUs and DPU.

    Attributes
    ----------
    governor : CPU frequency governor
    highest_mhz : highest clock of the CPUs
    dpu_nominal_mhz, dpu_cores : clock and number of cores of the DPU by the board's profile
    """

    governor: str | None = None
    highest_mhz: float | None = None
    dpu_nominal_mhz: float | None = None
    dpu_cores: int | None = None


@dataclass(frozen=True)
class ModelFacts:
    """The model.

    Attributes
    ----------
    name : name of the model
    target : the DPU or emulator that it is compiled for, as text
    path : path of the .xmodel, as far as it is shown
    dpu : name of the DPU in the file
    input : shape of the input, NHWC
    sha256 : SHA-256 of the .xmodel
    provenance : [provenance] of model.toml
    """

    name: str
    target: str
    path: str = ""
    dpu: str | None = None
    input: list[int] = field(default_factory=list)
    sha256: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageFacts:
    """The images.

    Attributes
    ----------
    source : source of the frames
    count : number of distinct images
    """

    source: str
    count: int


@dataclass
class PowerSource:
    """The source of power readings.

    Attributes
    ----------
    source : name of the source; "none" if power is not measured
    reason : description of the source, or why power is not measured
    rails : names of the measured rails
    total_rail : the rail that feeds the whole board; None without one
    doubts : reasons to doubt readings
    """

    source: str = "none"
    reason: str = ""
    rails: list[str] = field(default_factory=list)
    total_rail: str | None = None
    doubts: list[SensorWarning] = field(default_factory=list)


@dataclass(frozen=True)
class IdleResults:
    """The whole board's power at idle.

    Attributes
    ----------
    watts : mean power
    start_s, end_s : start and end, s
    concerns : reasons to doubt the figure
    """

    watts: Figure
    start_s: float = 0.0
    end_s: float = 0.0
    concerns: list[Concern] = field(default_factory=list)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of the latency.

    Attributes
    ----------
    p50, p90, p99 : latency that 50, 90 and 99 % of the frames do not exceed, ms
    """

    p50: Figure = field(default_factory=Figure)
    p90: Figure = field(default_factory=Figure)
    p99: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class Latencies(Percentiles):
    """Latencies of a window.

    Attributes
    ----------
    mean : mean latency of the classified frames, ms
    max : their highest latency, ms; it has no interval
    """

    mean: Figure = field(default_factory=Figure)
    max: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class FrameCounts:
    """Numbers of frames of a window.

    Attributes
    ----------
    classified, failed : frames whose results were delivered within it
    arrived : frames that arrived within it; "server" only
    unanswered : those of them without any result, even after the window
    """

    classified: int = 0
    failed: int = 0
    arrived: int | None = None
    unanswered: int | None = None


@dataclass(frozen=True)
class PowerResults:
    """Power and energy of the whole board in a window.

    Attributes
    ----------
    watts, joules_per_frame, fps_per_watt : mean power, W, energy of a frame, J, and frames per
        second and watt
    watts_above_idle, joules_per_frame_above_idle, fps_per_watt_above_idle : the same without the
        power at idle
    idle : the power at idle that was subtracted
    source, reason, total_rail, doubts : as in `power` of the whole run
    rails : figures of each rail, by name
    samples, rate_hz, jitter_ms, missed : number and rate of samples, their delay, and the number
        of samples that were skipped
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
    """A step of the plan and the times of its window.

    Attributes
    ----------
    name : the step as text, such as "offline, 4 threads"
    scenario : "single-stream", "offline" or "server"
    threads : number of threads, each with a runner
    qps, bound_ms : arrivals per second and latency bound of "server"
    repetition : 1, 2, ... if all steps are repeated
    start_s, end_s : start and end of the window, s
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
    frames : numbers of frames
    sections : number of sections that the window was cut into for the intervals; None: too few
        frames
    fps : frames per second
    latency_ms : latencies of the frames delivered within it; for "server", of those that arrived
        within it, and one that failed or is unanswered counts as slower than all others, so that a
        percentile that it decides is not known
    stages_ms : p50 and p99 of each stage of the pipeline
    drift : relative rise of the speed in the window's second half; None if not significant
    power : power and energy
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
    dpu_utilisation : upper bound of the fraction of the window in which the DPU's cores computed,
        mean over the cores. A job counts from its submission until its result is fetched, so that
        two threads which wait for one core at the same time count twice, up to 1 for each core
    realtime : board, predicted time of a job (job_ms) and number of late jobs, if the emulation
        was slowed down to a board's speed
    conditions : minimum, mean and maximum of each reading of the machine's state
    concerns : reasons to doubt the figures
    """

    dpu_utilisation: float | None = None
    realtime: dict[str, Any] | None = None
    conditions: dict[str, dict[str, float] | None] = field(default_factory=dict)
    concerns: list[Concern] = field(default_factory=list)


@dataclass(kw_only=True)
class Outcome:
    """The end of a measurement or comparison: the fields present even in a refused one's file.

    Attributes
    ----------
    state : "running", "done", "refused", "stopped", "failed" or "broken off"
    error : reason, if the state is not as planned
    started : start time (ISO 8601) by the clock of the initiator
    """

    state: str
    error: str | None = None
    started: str = ""


@dataclass(kw_only=True)
class RunResults(Outcome):
    """The contents of run.json.

    Attributes
    ----------
    machine_clock : start time by the clock of the machine
    seconds : duration of the measurement, s
    provider : what runs the model
    emulation : whether the provider is the emulation
    realtime : board whose speed the emulation reproduces
    pace : what determines the time of jobs
    machine, model, images : what was measured
    overlay : VART's configuration, and the SHA-256 of the DPU's xclbin
    clocks : clocks of CPUs and DPU
    in_flight : jobs that each runner has at once
    phases : lengths of the plan's phases, s
    accepted : names of the concerns that the user accepted
    power : source of power readings
    idle : power at idle, "before" and "after" the steps
    steps : the steps with their figures
    notes : further remarks
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
        """Whether the times are those of a DPU, which those of an emulation never are."""
        return not self.emulation and (self.pace is None or self.pace.measured)


def read_run(path: Path) -> RunResults:
    """Read a run.json, given the file or its directory; raises ResultsError."""
    return read_results(RunResults, path / RUN_FILE if path.is_dir() else path, _WHAT)


def run_table(text: str, name: str) -> dict[str, Any]:
    """Parse the text of a run.json and verify only its state and error.

    For files of a refused or interrupted measurement, which may contain nothing else.

    Parameters
    ----------
    name : name of the file, for the message

    Raises
    ------
    ResultsError
        The text is not JSON or has no state.
    """
    try:
        table: dict[str, Any] = json_value(text)
        decode(Outcome, table)
    except MismatchError as error:
        raise ResultsError(f"{name}: not {_WHAT}: {error}") from error
    return table


def run_text(run: RunResults) -> str:
    """Return the text of run.json, with rounded figures; the model's facts are not rounded."""
    table = as_json(run)
    shown = {key: value if key == "model" else rounded(value) for key, value in table.items()}
    return json_text(shown, indent=2) + "\n"


def rounded(value: Any) -> Any:
    """Return floats rounded to 9 significant digits, without negative zeros, at any depth."""
    if isinstance(value, float):
        return float(f"{value:.9g}") + 0.0
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value
