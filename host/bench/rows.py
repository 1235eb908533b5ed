"""A row of the comparison: one platform's figures, and where each comes from.

`kind` says how the row came about, and nothing else does: MEASURED here or on a board, PREDICTED
for a DPU, or EMULATED, a run of the application in front of the emulation, which is no DPU.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.host.bench.medians import NOT_MEASURED, Figure

MEASURED, PREDICTED, EMULATED = "measured", "predicted", "emulation"
DONE, ABSENT, FAILED, INTERRUPTED = "done", "absent", "failed", "interrupted"

DPU = "dpu"
"""Family of rows that tell of a DPU; those of platforms are in host/bench/platform.py."""

PERCENTILES = ("p50", "p90", "p99")
WHOLE_FRAME = "image in memory, preprocessing, network, top-1"
NETWORK_ALONE = "network alone"
GIVEN = "given by the user"


def nothing() -> Figure:
    """A figure that was not measured."""
    return dict(NOT_MEASURED)


def no_latency() -> dict[str, Figure]:
    """Percentiles that were not measured."""
    return {name: nothing() for name in PERCENTILES}


@dataclass
class Row:
    """One platform.

    Attributes
    ----------
    id : by which other tables name it
    title : for the reader
    family : "cpu", "gpu", "dpu" or "emulation"
    kind : MEASURED, PREDICTED or EMULATED
    by, when, where : the figures' origin: program and version, time (ISO 8601, UTC), machine
    state : DONE, ABSENT, FAILED or INTERRUPTED; `reason` is one line where it is not DONE
    latency_ms, network_latency_ms : percentiles of SingleStream, of WHOLE_FRAME and NETWORK_ALONE
    fps, network_fps : of Offline
    batch : images per run in Offline; `batch_trials`: frames per second that each size had
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
    latency_ms: dict[str, Figure] = field(default_factory=no_latency)
    network_latency_ms: dict[str, Figure] = field(default_factory=no_latency)
    fps: Figure = field(default_factory=nothing)
    network_fps: Figure = field(default_factory=nothing)
    batch: int | None = None
    batch_trials: dict[str, float] = field(default_factory=dict)
    watts: Figure = field(default_factory=nothing)
    joules_per_frame: Figure = field(default_factory=nothing)
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
        parts = (self.kind, f"by {self.by}", self.when, self.where)
        return ", ".join(part for part in parts if part and part != "by ")

    def as_dict(self) -> dict[str, Any]:
        """For bench.json."""
        return asdict(self)


def give_watts(row: Row, watts: float) -> None:
    """Take the user's own measurement of a row's power."""
    row.watts = {**nothing(), "value": watts, "n": 1}
    row.power_source, row.power_reason = GIVEN, ""
    row.power_scope = "whatever the user's meter measures"
    fps = row.fps["value"] or row.network_fps["value"]
    row.joules_per_frame = nothing()
    if fps:
        row.joules_per_frame |= {"value": watts / fps, "n": 1}
