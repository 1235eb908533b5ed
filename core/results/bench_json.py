"""bench.json: the results of a comparison of platforms, written by `tutelage bench`.

Only a row's `kind` says how it was obtained: MEASURED here or on a board, PREDICTED for a DPU, or
EMULATED, a run of the application with the emulation, which is not a DPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.results.figure import MEASURED, Figure, as_json
from tutelage.core.results.run_json import Percentiles
from tutelage.core.results.typed_json import read_results
from tutelage.core.text import json_text

BENCH_FILE = "bench.json"
EMULATED = "emulation"
CPU, GPU, DPU, EMULATION = "cpu", "gpu", "dpu", "emulation"
"""Families of rows; DPU rows are measured on a board or predicted."""
DONE, ABSENT, FAILED, INTERRUPTED = "done", "absent", "failed", "interrupted"


@dataclass
class BenchRow:
    """One platform, its figures and their origin.

    Attributes
    ----------
    id : identifier used by other tables
    title : display name
    family : CPU, GPU, DPU or EMULATION
    kind : MEASURED, PREDICTED or EMULATED
    by, when, where : the figures' origin: program and version, time (ISO 8601, UTC), machine
    state : DONE, ABSENT, FAILED or INTERRUPTED; `reason` is one line if it is not DONE
    latency_ms, network_latency_ms : of the whole frame and of the network alone, in SingleStream
    fps, network_fps : frames per second likewise, in Offline
    batch : images per run in Offline; `batch_trials`: frames per second with each size tried
    idle_watts : power at idle by the same meter, before anything ran
    watts_above_idle : power in Offline above `idle_watts`
    watts, joules_per_frame : in Offline; `power_source` and `power_scope` say what was measured,
        `power_reason` why nothing was
    accuracy : top-1, percent; `accuracy_by` names the computation that has this accuracy
    same_class : percentage of images with the same class as in the quantised student
    model_file, model_bytes : file that the platform loads, and its size
    memory_mib : peak memory of its process, MiB
    same_student : whether it is known to be the same student as in the other rows
    concerns : reasons to doubt the figures
    repetitions : figures of each repetition, with the times of its windows
    """

    id: str
    title: str
    family: str
    kind: str = MEASURED
    by: str = ""
    when: str = ""
    where: str = ""
    state: str = DONE
    reason: str = ""
    device: str = ""
    threads: int | None = None
    latency_ms: Percentiles = field(default_factory=Percentiles)
    network_latency_ms: Percentiles = field(default_factory=Percentiles)
    fps: Figure = field(default_factory=Figure)
    network_fps: Figure = field(default_factory=Figure)
    batch: int | None = None
    batch_trials: dict[str, float] = field(default_factory=dict)
    watts: Figure = field(default_factory=Figure)
    joules_per_frame: Figure = field(default_factory=Figure)
    idle_watts: Figure = field(default_factory=Figure)
    watts_above_idle: Figure = field(default_factory=Figure)
    power_source: str = ""
    power_scope: str = ""
    power_reason: str = ""
    accuracy: float | None = None
    accuracy_by: str = ""
    same_class: float | None = None
    model_file: str = ""
    model_bytes: int | None = None
    memory_mib: float | None = None
    same_student: bool | None = True
    concerns: list[str] = field(default_factory=list)
    repetitions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def provenance(self) -> str:
        """Origin of the figures, in one line."""
        parts = (self.kind, self.by and f"by {self.by}", self.when, self.where)
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class GainInput:
    """One of the two figures that a gain is computed from: its row, name, value and kind.

    `watts` names the source of the power, if the figure involves power.
    """

    row: str
    figure: str
    value: float | None
    kind: str = MEASURED
    watts: str = ""


@dataclass(frozen=True)
class Gain:
    """The gain of a DPU over a platform, a ratio.

    Attributes
    ----------
    figure : its value and interval
    inputs : "dpu" and "platform"
    missing : why there is no value, "" if there is one
    needs_watts : if only the platform's watts are missing, the power above which the gain would
        reach that of the thesis
    """

    figure: Figure
    inputs: dict[str, GainInput]
    missing: str = ""
    needs_watts: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class DpuComparison:
    """Gains of a DPU row over a platform row, given by id; `kind` is that of the DPU row."""

    dpu: str
    platform: str
    kind: str
    stages: str
    speed_up: Gain
    efficiency: Gain
    power: Gain = field(default_factory=lambda: Gain(Figure(), {}, "not compared"))


@dataclass(frozen=True)
class ReportedGains:
    """The gains reported by the thesis, with its wording and the source.

    Its abstracts disagree: the English one claims `efficiency`, the Greek one `power`, which is 0.0
    in files of earlier versions.
    """

    speed_up: float
    efficiency: float
    text: str
    source: str
    power: float = 0.0


@dataclass(frozen=True)
class ThesisTable:
    """The gains of the DPU over each platform, and the figures missing to compute them."""

    reference: ReportedGains
    missing: list[str]
    comparisons: list[DpuComparison]


@dataclass(frozen=True)
class BenchModel:
    """The student under comparison."""

    name: str
    path: str = ""
    checkpoint_sha256: str | None = None
    input: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchImages:
    """The images of the comparison; `labelled` is the number with a known label."""

    source: str
    count: int
    labelled: int


@dataclass(frozen=True)
class BenchSettings:
    """Settings of the comparison.

    Attributes
    ----------
    platforms : names, in the order of the table
    repetitions : number of passes, each through all platforms
    seconds, warm_up : duration of each window and of its warm-up, s
    threads : threads of each framework
    board : board whose DPU is predicted if none was measured
    watts : power given by the user, by row, W
    """

    platforms: tuple[str, ...]
    repetitions: int
    seconds: float
    warm_up: float
    threads: int
    board: str
    watts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchMachine:
    """The machine of the comparison; None for values it does not report.

    Attributes
    ----------
    cpu, cores, logical_cpus, memory_gib, virtual_machine, governor : its processor and memory
    pinned_to, threads : CPUs that processes are pinned to, and threads of each framework
    load_before : system load before the first timing
    packages : name -> version
    """

    cpu: str
    threads: int
    cores: int | None = None
    logical_cpus: int | None = None
    pinned_to: list[int] = field(default_factory=list)
    governor: str | None = None
    virtual_machine: bool = False
    memory_gib: float | None = None
    load_before: float | None = None
    system: str = ""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class MeterFacts:
    """Power source of a family of platforms, and its power at idle, W."""

    source: str
    reason: str
    idle: Figure = field(default_factory=Figure)


@dataclass(frozen=True, kw_only=True)
class BenchResults:
    """The contents of bench.json."""

    state: str
    started: str
    ended: str = ""
    model: BenchModel
    images: BenchImages
    setting: BenchSettings
    environment: BenchMachine
    power: dict[str, MeterFacts] = field(default_factory=dict)
    rows: list[BenchRow]
    thesis: ThesisTable
    notes: list[str] = field(default_factory=list)


def read_bench(path: Path) -> BenchResults:
    """Read a bench.json, given the file or its directory; raises ResultsError."""
    file = path / BENCH_FILE if path.is_dir() else path
    return read_results(BenchResults, file, "a comparison of `tutelage bench`")


def bench_text(results: BenchResults) -> str:
    """Return the text of bench.json, with each row's provenance as one line added."""
    table = as_json(results)
    rows = zip(table["rows"], results.rows, strict=True)
    table["rows"] = [row | {"provenance": whole.provenance} for row, whole in rows]
    return json_text(table, indent=2) + "\n"
