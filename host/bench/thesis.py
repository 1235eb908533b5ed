"""Gains of the DPU over each platform in latency, efficiency and power, beside those of a thesis.

    speed-up            = latency of the platform / latency of the DPU   (p50 of SingleStream)
    efficiency gain     = (fps / W of the DPU) / (fps / W of the platform)   (Offline)
    lower power         = W of the platform / W of the DPU   (Offline)

Every cell has its two inputs, or a reason why it is missing, such as that a row is not complete.
The latency of a measured DPU is compared by the whole frame, that of a predicted one by the network
alone. Efficiency is always that of whole frames, since a platform's watts are those of a window
that includes the preprocessing; the predicted DPU's preprocessing is that of AMD's own programs, to
which the prediction was fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.core.results.bench_json import (
    CPU,
    DONE,
    DPU,
    GPU,
    BenchRow,
    DpuComparison,
    Gain,
    GainInput,
    ReportedGains,
    ThesisTable,
)
from tutelage.core.results.figure import GIVEN, MEASURED, PREDICTED, Figure
from tutelage.core.results.intervals import ratio

WHOLE_FRAME = "image in memory, preprocessing, network, top-1"
NETWORK_ALONE = "network alone"

REFERENCE = ReportedGains(
    speed_up=9.0,
    efficiency=4.0,
    power=9.0,
    text="at least 9x lower latency than CPU and GPU in both of its abstracts, 4x better power "
    "efficiency in the English one, 9x lower power in the Greek one",
    source="a thesis of 2022 on QKD of DenseNet with Vitis AI; its platforms, models and "
    "conditions are not these",
)
"""Gains that the work this project builds on reports. Source: the English and Greek abstracts of
A.-N. Vailakis's thesis, Technical University of Crete, 2022, doi:10.26233/heallink.tuc.91712."""

NO_DPU = "no DPU was measured: give a run of tutelage measure with --dpu"


def thesis_table(rows: Sequence[BenchRow]) -> ThesisTable:
    """Return the table of gains for the rows of a comparison."""
    return ThesisTable(REFERENCE, missing(rows), compare(rows))


def compare(rows: Sequence[BenchRow]) -> list[DpuComparison]:
    """Return comparisons of every DPU with every platform, without the emulation."""
    dpus = [row for row in rows if row.family == DPU]
    platforms = [row for row in rows if row.family in (CPU, GPU)]
    return [_comparison(dpu, other) for dpu in dpus for other in platforms]


def missing(rows: Sequence[BenchRow]) -> list[str]:
    """Return a line for each that is missing: a measured DPU, a GPU, watts."""
    found = []
    if not any(row.family == DPU and row.kind == MEASURED for row in rows):
        found.append(NO_DPU)
    gpus = [row for row in rows if row.family == GPU]
    if not any(row.state == DONE and row.latency_ms.p50.value for row in gpus):
        reason = gpus[0].reason if gpus else "none was requested"
        found.append(f"no GPU was measured: {reason}")
    here = [row for row in rows if row.family in (CPU, GPU) and row.state == DONE]
    if not any(row.watts.value and row.power_source != GIVEN for row in here):
        reason = next((row.power_reason for row in here if row.power_reason), "no row is complete")
        found.append(f"no watts were measured here: {reason}")
    return found


def _comparison(dpu: BenchRow, other: BenchRow) -> DpuComparison:
    alone = dpu.kind == PREDICTED
    latency = "network_latency_ms" if alone else "latency_ms"
    stages = f"latency: {NETWORK_ALONE}; fps/W: {WHOLE_FRAME}" if alone else WHOLE_FRAME
    return DpuComparison(
        dpu.id, other.id, dpu.kind, stages, _speed_up(dpu, other, latency),
        _efficiency(dpu, other), _power(dpu, other),
    )  # fmt: skip


def _speed_up(dpu: BenchRow, other: BenchRow, name: str) -> Gain:
    ours, theirs = getattr(dpu, name).p50, getattr(other, name).p50
    inputs = {
        "dpu": _input(dpu, f"{name}.p50", ours),
        "platform": _input(other, f"{name}.p50", theirs),
    }
    missing = _not_comparable(dpu, other) or _missing(dpu, ours) or _missing(other, theirs)
    if missing:
        return Gain(Figure(), inputs, missing)
    return Gain(ratio(theirs, ours), inputs)


def _efficiency(dpu: BenchRow, other: BenchRow) -> Gain:
    ours, theirs = _fps_per_watt(dpu), _fps_per_watt(other)
    inputs = {"dpu": _input(dpu, "fps / watts", ours),
              "platform": _input(other, "fps / watts", theirs)}  # fmt: skip
    missing = _not_comparable(dpu, other)
    missing = missing or _missing(dpu, dpu.fps) or _no_watts(dpu) or _missing(other, other.fps)
    if missing:
        return Gain(Figure(), inputs, missing)
    if other.watts.value is None:
        needed = ratio(other.fps, ours).scaled(REFERENCE.efficiency, "W")
        return Gain(Figure(), inputs, _no_watts(other), needed)
    return Gain(ratio(ours, theirs), inputs)


def _fps_per_watt(row: BenchRow) -> Figure:
    # Frames are counted, and the clock's error is negligible.
    return ratio(replace(row.fps, sensor_error=0.0), row.watts, "fps/W")


def _power(dpu: BenchRow, other: BenchRow) -> Gain:
    inputs = {"dpu": _input(dpu, "watts", dpu.watts),
              "platform": _input(other, "watts", other.watts)}  # fmt: skip
    missing = _not_comparable(dpu, other) or _no_watts(dpu)
    if missing:
        return Gain(Figure(), inputs, missing)
    if other.watts.value is None:
        needed = dpu.watts.scaled(REFERENCE.power, "W")
        return Gain(Figure(), inputs, _no_watts(other), needed)
    return Gain(ratio(other.watts, dpu.watts), inputs)


def _input(row: BenchRow, figure: str, found: Figure) -> GainInput:
    meter = f"{row.power_source}: {row.power_scope}" if "watts" in figure else ""
    return GainInput(row.id, figure, found.value, row.kind, meter)


def _not_comparable(dpu: BenchRow, other: BenchRow) -> str:
    if dpu.same_student is False:
        return f"{dpu.id} was measured with another student"
    return next((f"{row.id}: {row.state}: {row.reason}" for row in (dpu, other)
                 if row.state != DONE), "")  # fmt: skip


def _missing(row: BenchRow, figure: Figure) -> str:
    return "" if figure.value is not None else f"{row.id}: missing: it has no such figure"


def _no_watts(row: BenchRow) -> str:
    if row.watts.value is not None:
        return ""
    return f"{row.id}: watts are not measured: {row.power_reason or 'no power source'}"
