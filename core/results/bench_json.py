"""bench.json: the results of a comparison of platforms, as `tutelage bench` writes them.

A row's `kind` says how it came about, and nothing else does: MEASURED here or on a board, PREDICTED
for a DPU, or EMULATED, a run of the application in front of the emulation, which is not a DPU.
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
"""Families of rows; those of a DPU are measured by a board or predicted."""
DONE, ABSENT, FAILED, INTERRUPTED = "done", "absent", "failed", "interrupted"


@dataclass
class BenchRow:
    """One platform, and where its figures come from.

    Attributes
    ----------
    id : by which other tables name it
    title : for the reader
    family : CPU, GPU, DPU or EMULATION
    kind : MEASURED, PREDICTED or EMULATED
    by, when, where : the figures' origin: program and version, time (ISO 8601, UTC), machine
    state : DONE, ABSENT, FAILED or INTERRUPTED; `reason` is one line where it is not DONE
    latency_ms, network_latency_ms : of SingleStream, of the whole frame and the network alone
    fps, network_fps : of Offline
    batch : images per run in Offline; `batch_trials`: frames per second that each size had
    idle_watts : of the same meter at rest, before anything ran
    watts_above_idle : of Offline, beyond it
    watts, joules_per_frame : of Offline; `power_source` and `power_scope` say what was measured,
        `power_reason` why nothing was
    accuracy : top-1 in percent, `accuracy_by` which computation had it
    same_class : percent of the images whose class is that of the quantised student
    model_file, model_bytes : what the platform loads
    memory_mib : the most that its process had in memory
    same_student : whether it is known to be the same student as in the other rows
    concerns : what speaks against the figures
    repetitions : figures of each, with the windows' times
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
        """How the figures came about, one line."""
        parts = (self.kind, self.by and f"by {self.by}", self.when, self.where)
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class GainInput:
    """One of the two figures that a gain is computed from: whose, of what kind, and its value.

    `watts` names the source of the power, where the figure has any.
    """

    row: str
    figure: str
    value: float | None
    kind: str = MEASURED
    watts: str = ""


@dataclass(frozen=True)
class Gain:
    """What a DPU gains over a platform, a ratio.

    Attributes
    ----------
    figure : its value and interval
    inputs : "dpu" and "platform"
    missing : why there is no value, "" where there is one
    needs_watts : where only the platform's watts are missing, those from which on what the thesis
        reports would hold
    """

    figure: Figure
    inputs: dict[str, GainInput]
    missing: str = ""
    needs_watts: Figure = field(default_factory=Figure)


@dataclass(frozen=True)
class DpuComparison:
    """A DPU's row beside a platform's, by their ids; kind is that of the DPU's row."""

    dpu: str
    platform: str
    kind: str
    stages: str
    speed_up: Gain
    efficiency: Gain
    power: Gain = field(default_factory=lambda: Gain(Figure(), {}, "not compared"))


@dataclass(frozen=True)
class ReportedGains:
    """The gains that the thesis reports, with its words and the source.

    Its abstracts disagree: the English one claims `efficiency`, the Greek one `power`; 0.0 in files
    of earlier versions.
    """

    speed_up: float
    efficiency: float
    text: str
    source: str
    power: float = 0.0


@dataclass(frozen=True)
class ThesisTable:
    """What the DPU gains over each platform, and what is missing to say so."""

    reference: ReportedGains
    missing: list[str]
    comparisons: list[DpuComparison]


@dataclass(frozen=True)
class BenchModel:
    """The student that is compared."""

    name: str
    path: str = ""
    checkpoint_sha256: str | None = None
    input: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchImages:
    """The images of the comparison; labelled: how many have a known label."""

    source: str
    count: int
    labelled: int


@dataclass(frozen=True)
class BenchSettings:
    """How the comparison is made.

    Attributes
    ----------
    platforms : names, in the order of the table
    repetitions : each goes through all platforms
    seconds, warm_up : of each window, s
    threads : of each framework
    board : whose DPU is predicted where none was measured
    watts : given by the user, by row
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
    """The machine of the comparison; None is what it does not say.

    Attributes
    ----------
    cpu, cores, logical_cpus, memory_gib, virtual_machine, governor : the processor's
    pinned_to, threads : CPUs that processes are pinned to, and threads of each framework
    load_before : the system's load before anything was timed
    packages : versions by name
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
    """Where the watts of a family of platforms come from, and what it takes at rest, W."""

    source: str
    reason: str
    idle: Figure = field(default_factory=Figure)


@dataclass(frozen=True, kw_only=True)
class BenchResults:
    """All of bench.json."""

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
    """Return a bench.json, given itself or by its directory; raises ResultsError."""
    file = path / BENCH_FILE if path.is_dir() else path
    return read_results(BenchResults, file, "a comparison of `tutelage bench`")


def bench_text(results: BenchResults) -> str:
    """Return the text of bench.json; each row has its provenance as one line, too."""
    table = as_json(results)
    rows = zip(table["rows"], results.rows, strict=True)
    table["rows"] = [row | {"provenance": whole.provenance} for row, whole in rows]
    return json_text(table, indent=2) + "\n"
