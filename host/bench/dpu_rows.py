"""Rows of the DPU: measured on a board, or else predicted; each row says which.

A measured run is a `run.json` of `tutelage measure` or `tutelage.app.measure`, or its directory. A
run on the emulation becomes a row of the emulation, whose speed is the machine's or a predicted
one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from tutelage.core.errors import DpuError
from tutelage.core.results.bench_json import ABSENT, DPU, EMULATED, EMULATION, BenchRow
from tutelage.core.results.figure import PREDICTED
from tutelage.core.results.intervals import median_of_figures
from tutelage.core.results.percentiles import PERCENTS
from tutelage.core.results.run_json import (
    DONE,
    RUN_FILE,
    ModelFacts,
    Percentiles,
    PowerResults,
    RunResults,
    StepResults,
    read_run,
)
from tutelage.core.results.typed_json import ResultsError
from tutelage.core.text import counted
from tutelage.dpu.predict.energy import BoardPower, board_power
from tutelage.dpu.predict.latency import Prediction, predict_graph
from tutelage.dpu.predict.prediction import fps_figure, latency_figure
from tutelage.host.bench.subject import BenchUsageError, Subject

_SINGLE_STREAM, _OFFLINE = "single-stream", "offline"


# -- measured runs ----------------------------------------------------------------------------


def read_runs(paths: Sequence[Path], subject: Subject) -> list[BenchRow]:
    """Return the rows of measured runs, on boards or on emulations.

    Parameters
    ----------
    paths : run.json files or their directories
    subject : the student to compare; rows of other students are marked

    Raises
    ------
    BenchUsageError
        A file cannot be read as a measured run.
    """
    rows: list[BenchRow] = []
    for path in paths:
        file = path / RUN_FILE if path.is_dir() else path
        try:
            row = _run_row(read_run(file), file, subject)
        except ResultsError as error:
            raise BenchUsageError(str(error)) from error
        row.id = f"{row.family}-{1 + sum(other.family == row.family for other in rows)}"
        rows.append(row)
    return rows


def _run_row(run: RunResults, file: Path, subject: Subject) -> BenchRow:
    where = run.machine.place
    row = BenchRow("", f"DPU, {where}", DPU, by=f"tutelage.app.measure, {run.provider}, {file}",
                   when=run.started, where=where,
                   device=run.model.dpu or run.model.target)  # fmt: skip
    if not run.on_dpu:
        row.family, row.kind = EMULATION, EMULATED
        row.title = f"emulation, no DPU, on {where}"
        row.concerns.append(f"emulation {_pace_text(run)}: not figures of a DPU")
    take_steps(row, run.steps)
    _take_cores(row, run.clocks.dpu_cores)
    row.concerns += run.notes
    if run.state != DONE:
        row.concerns.append(f"the run was not completed: {run.state}: {run.error or ''}")
    _take_student(row, run.model, subject)
    return row


def _pace_text(run: RunResults) -> str:
    if run.pace:
        return run.pace.text
    if run.realtime:
        return f"at the pace predicted for {run.realtime}"
    return "at full speed of that machine"


def take_steps(row: BenchRow, steps: Sequence[StepResults]) -> None:
    """Set latency from SingleStream, speed and watts from the fastest thread count in Offline."""
    single = [step for step in steps if step.scenario == _SINGLE_STREAM and step.threads == 1]
    row.latency_ms = Percentiles(
        *(median_of_figures([getattr(step.latency_ms, f"p{percent}") for step in single], "ms")
          for percent in PERCENTS)
    )  # fmt: skip
    offline = [step for step in steps if step.scenario == _OFFLINE]
    groups = [[step for step in offline if step.threads == threads]
              for threads in dict.fromkeys(step.threads for step in offline)]  # fmt: skip
    best = max(groups, key=_middle_fps, default=[])
    row.fps = median_of_figures([step.fps for step in best], "fps")
    row.threads = best[0].threads if best else None
    _take_power(row, [step.power for step in best])
    for step in (*single, *best):
        row.concerns += [f"{step.name}: {each.name}: {each.text}" for each in step.concerns]
    if not single:
        row.concerns.append("the run has no single-stream window")
    if not best:
        row.concerns.append("the run has no offline window")


def _take_cores(row: BenchRow, cores: int | None) -> None:
    """Add a concern if there were fewer threads than cores: a runner uses one core."""
    if cores and row.threads and row.threads < cores:
        row.concerns.append(f"Offline used {row.threads} of the DPU's {counted(cores, 'core')}: "
                            "measure with as many threads as cores")  # fmt: skip


def _take_power(row: BenchRow, powers: Sequence[PowerResults]) -> None:
    row.watts = median_of_figures([power.watts for power in powers], "W")
    row.joules_per_frame = median_of_figures([power.joules_per_frame for power in powers], "J")
    if not powers:
        return
    if row.watts.value is None:
        row.power_reason = powers[0].reason
    else:
        row.power_source = powers[0].source
        row.power_scope = f"rail {powers[0].total_rail}" if row.power_source else ""


def _middle_fps(steps: Sequence[StepResults]) -> float:
    return statistics.median(step.fps.value or 0.0 for step in steps)


def _take_student(row: BenchRow, model: ModelFacts, subject: Subject) -> None:
    made_from = model.provenance.get("checkpoint_sha256", "")
    row.same_student = None
    if made_from and subject.checkpoint:
        row.same_student = made_from == subject.checkpoint
    if row.same_student is None:
        row.concerns.append(f"it is unknown whether its model, {model.name}, is this student")
    elif not row.same_student:
        row.concerns.append(f"its model, {model.name}, is another student")


# -- the prediction ---------------------------------------------------------------------------


# The shortest time on the DPU among the published networks: below it the model extrapolates.
_SHORTEST_FITTED_SECONDS = 0.4e-3


def predicted_row(subject: Subject, board: str) -> BenchRow:
    """Return a row with predicted speed and estimated power; absent if it cannot be predicted.

    Parameters
    ----------
    board : name of the board profile
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    title = f"DPU of the {board.upper()}, predicted"
    row = BenchRow("dpu-predicted", title, DPU, PREDICTED, when=now, where="no DPU was measured")
    if subject.compiled is None:
        return _absent(row, f"{subject.path} has no compiled or quantised model")
    try:
        found = predict_graph(subject.compiled, board)
    except DpuError as error:
        return _absent(row, str(error))
    if found.misfit or not found.stages:
        return _absent(row, found.misfit or "no layer runs on the DPU")
    _take_prediction(row, found)
    _take_estimate(row, found, board_power(board))
    return row


def _take_estimate(row: BenchRow, found: Prediction, power: BoardPower | None) -> None:
    """Set watts and joules per frame with all cores busy."""
    if power is None or power.watts().value is None:
        row.power_reason = "the power of this board is not known"
        return
    row.watts, row.joules_per_frame = power.watts(), power.joules_per_frame(found)
    row.power_source, row.power_reason = power.source, ""
    row.power_scope = "the whole board with all cores busy"


def _absent(row: BenchRow, reason: str) -> BenchRow:
    row.state, row.reason = ABSENT, reason
    return row


def _take_prediction(row: BenchRow, found: Prediction) -> None:
    board, job = found.board, found.job_seconds
    row.device = board.name
    row.by = f"tutelage.dpu.predict.latency.predict, {board.cores} cores at {board.clock_mhz:g} MHz"
    # The prediction is one number, without percentiles; tables show it as the p50. Its error is
    # known for whole frames only, and the network alone gets the same relative error.
    latency, fps = latency_figure(found), fps_figure(found)
    row.latency_ms = Percentiles(p50=latency)
    row.network_latency_ms = Percentiles(p50=latency.scaled(job / found.latency_seconds, "ms"))
    row.fps, row.network_fps = fps, fps.scaled(found.dpu_fps / found.fps(), "fps")
    low, high = (end / found.fps() - 1 for end in found.fps_range())
    row.concerns.append(
        f"with pre- and postprocessing of AMD's own programs on the A53; networks left out of the "
        f"fit were between {low:+.0%} and {high:+.0%} of its fps"
    )
    if job < _SHORTEST_FITTED_SECONDS:
        row.concerns.append(f"{1e3 * job:.2f} ms on the DPU is shorter than any network it was "
                            "fitted to: an extrapolation")  # fmt: skip
