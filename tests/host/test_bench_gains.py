"""The gains of a DPU over each platform, by hand-made rows; needs no framework."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench_results import bench_results
from tutelage.core.results.bench_json import (
    CPU,
    DPU,
    EMULATION,
    FAILED,
    GPU,
    INTERRUPTED,
    BenchRow,
    GainInput,
)
from tutelage.core.results.figure import GIVEN, MEASURED, PREDICTED, Figure
from tutelage.core.results.intervals import ratio
from tutelage.core.results.run_json import Percentiles
from tutelage.host.bench.tables import markdown
from tutelage.host.bench.thesis import (
    NETWORK_ALONE,
    REFERENCE,
    WHOLE_FRAME,
    compare,
    missing,
    thesis_table,
)

positive = st.floats(1e-3, 1e6)


def bench_row(name: str, family: str, latency: float, fps: float, watts: float | None) -> BenchRow:
    row = BenchRow(name, name, family)
    row.latency_ms = row.network_latency_ms = Percentiles(p50=Figure.around(latency))
    row.fps = row.network_fps = Figure.around(fps)
    row.watts = Figure.around(watts)
    row.power_reason = "" if watts else "no sensor"
    return row


@given(positive, positive, positive, positive, positive, positive)
def test_the_gains(l1: float, l2: float, f1: float, f2: float, w1: float, w2: float) -> None:
    (found,) = compare([bench_row("cpu", CPU, l1, f1, w1), bench_row("dpu-1", DPU, l2, f2, w2)])
    assert found.kind == MEASURED
    assert found.speed_up.figure.value == pytest.approx(l1 / l2)
    assert found.efficiency.figure.value == pytest.approx((f2 / w2) / (f1 / w1))
    assert found.power.figure.value == pytest.approx(w1 / w2)
    assert found.speed_up.inputs["dpu"].figure == "latency_ms.p50"
    theirs = found.efficiency.inputs["platform"]
    assert theirs.value == pytest.approx(f1 / w1)
    assert theirs == GainInput("cpu", "fps / watts", theirs.value, MEASURED, ": ")


def test_missing_parts_are_named() -> None:
    gone = BenchRow("cuda", "CUDA", "gpu", state="absent", reason="no device")
    rows = [bench_row("cpu", CPU, 1, 1, None), gone, bench_row("dpu-1", DPU, 0.1, 10, 5)]
    by_cpu, by_gpu = compare(rows)
    assert by_cpu.speed_up.figure.value == pytest.approx(10)
    assert by_cpu.efficiency.missing == "cpu: watts are not measured: no sensor"
    assert by_cpu.power.missing == by_cpu.efficiency.missing
    assert by_gpu.speed_up.missing == "cuda: absent: no device"
    rows[-1].same_student = False
    assert "another student" in compare(rows)[0].speed_up.missing


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("state", [FAILED, INTERRUPTED])
def test_rows_that_are_not_complete_have_no_gains(state: str, number: int) -> None:
    """As in the report, which leaves such rows out; their figures are those of fewer windows."""
    rows = [bench_row("gpu", GPU, 1, 1, 9), bench_row("dpu-1", DPU, 0.1, 10, 5)]
    rows[number].state, rows[number].reason = state, "1 repetition complete"
    (found,) = compare(rows)
    for gain in (found.speed_up, found.efficiency, found.power):
        assert gain.missing == f"{rows[number].id}: {state}: 1 repetition complete"
        assert gain.figure.value is None
    if number == 0:
        assert missing(rows) == [
            "no GPU was measured: 1 repetition complete",
            "no watts were measured here: no row is complete",
        ]


def test_both_claims_say_from_which_watts_they_would_hold() -> None:
    """Only the platform's watts are missing; with these, the gains equal the claims."""
    dpu, other = bench_row("dpu-1", DPU, 0.1, 100, 5), bench_row("cpu", CPU, 1, 50, None)
    (found,) = compare([dpu, other])
    assert REFERENCE.efficiency == 4 and REFERENCE.power == 9
    for gain, claimed in ((found.efficiency, 4), (found.power, 9)):
        assert gain.needs_watts.value is not None
        other.watts = Figure.around(gain.needs_watts.value)
        (whole,) = compare([dpu, other])
        same = whole.efficiency if claimed == 4 else whole.power
        assert same.figure.value == pytest.approx(claimed) and same.needs_watts.value is None


def test_frames_and_watts_of_the_efficiency_are_of_the_same_work() -> None:
    """Watts are those of the whole Offline window, with the preprocessing in it."""
    cpu, dpu = bench_row("cpu", CPU, 1, 100, 10), bench_row("dpu-predicted", DPU, 0.1, 1000, 20)
    dpu.kind = PREDICTED
    for row in (cpu, dpu):
        row.joules_per_frame = ratio(row.watts, row.fps, "J")
    cpu.network_fps = cpu.fps.scaled(3, "fps")  # the network alone is three times as fast
    (found,) = compare([cpu, dpu])
    joules = ratio(cpu.joules_per_frame, dpu.joules_per_frame)
    assert found.efficiency.figure.value == joules.value == pytest.approx(5)
    assert {each.figure for each in found.efficiency.inputs.values()} == {"fps / watts"}
    assert found.speed_up.inputs["dpu"].figure == "network_latency_ms.p50"
    assert found.stages == f"latency: {NETWORK_ALONE}; fps/W: {WHOLE_FRAME}"


@pytest.mark.parametrize("reason", ["another student", "no watts of the DPU", "no speed", "failed"])
def test_watts_from_which_a_claim_holds_need_the_other_figures(reason: str) -> None:
    other = bench_row("cpu", CPU, 1, 50, None)
    dpu = bench_row("dpu-1", DPU, 0.1, 100, None if reason == "no watts of the DPU" else 5)
    if reason == "another student":
        dpu.same_student = False
    elif reason == "no speed":
        other.fps = Figure()
    elif reason == "failed":
        other.state = FAILED
    (found,) = compare([dpu, other])
    assert found.efficiency.missing and found.efficiency.needs_watts.value is None
    assert (found.power.needs_watts.value is not None) == (reason == "no speed")


def test_unmeasured_values_are_reported() -> None:
    rows = [bench_row("cpu", CPU, 1, 1, None), bench_row("emulation-1", EMULATION, 1, 1, 1)]
    no_dpu, no_gpu, no_watts = missing(rows)
    assert "no DPU was measured" in no_dpu and "no GPU was measured: none" in no_gpu
    assert no_watts == "no watts were measured here: no sensor"
    rows[0].watts, rows[0].power_source = Figure.around(20.0), GIVEN
    assert len(missing(rows)) == 3
    assert missing([bench_row("g", "gpu", 1, 1, 1), bench_row("dpu-1", DPU, 1, 1, 1)]) == []


def test_the_emulation_is_never_compared_as_a_dpu() -> None:
    assert (
        compare([bench_row("cpu", CPU, 1, 1, 1), bench_row("emulation-1", EMULATION, 1, 1, 1)])
        == []
    )


def test_errors_of_the_readings_are_shown_and_reach_the_gains() -> None:
    cpu, dpu = bench_row("cpu", CPU, 1, 100, 10), bench_row("dpu-1", DPU, 0.1, 1000, 20)
    for row, share in ((cpu, 0.05), (dpu, 0.01)):
        assert row.watts.value
        row.watts = replace(row.watts, sensor_error=share * row.watts.value)
        row.power_source, row.power_scope = "a meter", row.id
    (found,) = compare([cpu, dpu])
    for gain in (found.efficiency.figure, found.power.figure):
        assert gain.value and gain.sensor_error == pytest.approx(0.06 * gain.value)
    text = markdown(bench_results(cpu, dpu, thesis=thesis_table([cpu, dpu])))
    assert "- cpu: watts: a meter: cpu; readings within 5 %\n" in text
    assert "- dpu-1: watts: a meter: dpu-1; readings within 1 %\n" in text
    assert f"Work covered: {WHOLE_FRAME}. " in text
