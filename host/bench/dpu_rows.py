"""Rows of the DPU: from runs that a board has measured, else predicted; each says which.

A run is `run.json` of `tutelage measure` or `tutelage.app.measure`, or its directory. One that says
`emulation: true` makes a row of the emulation, whose pace is this machine's or a prediction's.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tutelage.core.errors import DpuError
from tutelage.dpu.predict.latency import Prediction, predict_graph
from tutelage.host.bench.medians import Figure, known_figure, median_figure, range_figure
from tutelage.host.bench.platform import EMULATION
from tutelage.host.bench.rows import DPU, EMULATED, PERCENTILES, PREDICTED, Row
from tutelage.host.bench.subject import BenchUsageError, Subject

_RUN = "run.json"
_SINGLE_STREAM, _OFFLINE = "single-stream", "offline"


# -- measured runs ----------------------------------------------------------------------------


def read_runs(paths: Sequence[Path], subject: Subject) -> list[Row]:
    """The rows of runs, of boards and of emulations.

    Raises
    ------
    BenchUsageError
        A file is no measured run.
    """
    rows: list[Row] = []
    for path in paths:
        file = path / _RUN if path.is_dir() else path
        try:
            run = json.loads(file.read_text(encoding="utf-8"))
            row = _run_row(run, file, subject)
        except OSError as error:
            raise BenchUsageError(f"{file}: {error.strerror or error}") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
                ValueError) as error:  # fmt: skip
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BenchUsageError(f"{file}: no run of `tutelage measure`: {text}") from error
        row.id = f"{row.family}-{1 + sum(other.family == row.family for other in rows)}"
        rows.append(row)
    return rows


def _run_row(run: Mapping[str, Any], file: Path, subject: Subject) -> Row:
    emulation = run["emulation"]
    if not isinstance(emulation, bool):
        raise ValueError("does not say whether it is the emulation")
    machine, model = run["machine"], run["model"]
    where = str(machine["board"] or machine["machine"])
    row = Row("", f"DPU, {where}", DPU, by=f"tutelage.app.measure, {run['provider']}, {file}",
              when=str(run["started"]), where=where,
              device=str(model["dpu"] or model["target"]))  # fmt: skip
    pace = run.get("pace")  # older runs have none
    if emulation or (pace and not pace["measured"]):
        row.family, row.kind = EMULATION, EMULATED
        row.title = f"emulation, no DPU, on {where}"
        how = f"at the pace predicted for {run['realtime']}" if run["realtime"] else ""
        how = pace["text"] if pace else how or "as fast as that machine goes"
        row.concerns.append(f"emulation {how}: not a DPU's figures")
    _take_steps(row, [step for step in run["steps"] if isinstance(step, dict)])
    if run["state"] != "done":
        row.concerns.append(f"the run was not completed: {run['state']}: {run['error'] or ''}")
    _take_student(row, model, subject)
    return row


def _take_steps(row: Row, steps: Sequence[Mapping[str, Any]]) -> None:
    """Latency from SingleStream, speed and watts from the quickest number of threads in Offline."""
    single = [s for s in steps if s["scenario"] == _SINGLE_STREAM and s["threads"] == 1]
    row.latency_ms = {
        name: _over(step["latency_ms"][name] for step in single) for name in PERCENTILES
    }
    threads = {s["threads"] for s in steps if s["scenario"] == _OFFLINE}
    groups = [
        [s for s in steps if s["scenario"] == _OFFLINE and s["threads"] == n] for n in threads
    ]
    best = max(groups, key=_middle_fps, default=[])
    row.fps = _over(step["fps"] for step in best)
    row.threads = best[0]["threads"] if best else None
    powers = [step["power"] for step in best]
    row.watts = _over(power["watts"] for power in powers)
    row.joules_per_frame = _over(power["joules_per_frame"] for power in powers)
    if powers:
        source, reason = powers[0]["source"], powers[0]["reason"]
        row.power_reason = str(reason) if row.watts["value"] is None else ""
        row.power_source = str(source) if row.watts["value"] is not None else ""
        row.power_scope = f"rail {powers[0]['total_rail']}" if row.power_source else ""
    for step in (*single, *best):
        row.concerns += [f"{step['name']}: {c['name']}: {c['text']}" for c in step["concerns"]]
    if not single:
        row.concerns.append("the run has no window of single-stream")
    if not best:
        row.concerns.append("the run has no window of offline")


def _middle_fps(steps: Sequence[Mapping[str, Any]]) -> float:
    return statistics.median(step["fps"]["value"] or 0.0 for step in steps)


def _over(figures: Iterable[Mapping[str, Any]]) -> Figure:
    """One repetition has its own interval, several have that of their median."""
    known = [figure for figure in figures if figure["value"] is not None]
    if len(known) == 1:
        return known_figure(known[0]["value"], known[0]["ci95"])
    return median_figure([figure["value"] for figure in known])


def _take_student(row: Row, model: Mapping[str, Any], subject: Subject) -> None:
    told = model["provenance"].get("checkpoint_sha256", "")
    row.same_student = (told == subject.checkpoint) if told and subject.checkpoint else None
    if row.same_student is None:
        row.concerns.append(f"nothing tells whether its model, {model['name']}, is this student")
    elif not row.same_student:
        row.concerns.append(f"its model, {model['name']}, is another student")


# -- the prediction ---------------------------------------------------------------------------


# No network in the published figures has less time on the DPU: below it the model is extrapolated.
_SHORTEST_FITTED_SECONDS = 0.4e-3


def predicted_row(subject: Subject, board: str) -> Row:
    """The row of a DPU that nobody has measured."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    title = f"DPU of the {board.upper()}, predicted"
    row = Row("dpu-predicted", title, DPU, PREDICTED, when=now, where="no DPU was measured")
    row.power_reason = "a prediction has no watts"
    if subject.compiled is None:
        row.state, row.reason = "absent", f"{subject.path} has no compiled or quantised model"
        return row
    try:
        found = predict_graph(subject.compiled, board)
    except DpuError as error:
        row.state, row.reason = "absent", str(error)
        return row
    if found.misfit:
        row.state, row.reason = "absent", found.misfit
        return row
    if not found.works:
        row.state, row.reason = "absent", "no layer runs on the DPU"
        return row
    _take_prediction(row, found)
    return row


def _take_prediction(row: Row, found: Prediction) -> None:
    board, job, latency = found.board, found.job_seconds, found.latency_seconds
    row.device = board.name
    row.by = f"tutelage.dpu.predict.latency.predict, {board.cores} cores at {board.clock_mhz:g} MHz"
    # Nothing in it is random: there are no percentiles, and the middle one is its place in a table.
    # What is known are errors of whole frames; the network alone is given the same share.
    least, most = (seconds / latency for seconds in found.latency_range())
    row.latency_ms["p50"] = range_figure(1e3 * latency, 1e3 * latency * least, 1e3 * latency * most)
    row.network_latency_ms["p50"] = range_figure(1e3 * job, 1e3 * job * least, 1e3 * job * most)
    fps, network_fps, (low, high) = found.fps(), found.dpu_fps, found.fps_range()
    row.fps = range_figure(fps, low, high)
    row.network_fps = range_figure(network_fps, network_fps * low / fps, network_fps * high / fps)
    row.concerns.append(
        f"with pre- and postprocessing of AMD's own programs on the A53; networks left out of the "
        f"fit lay between {low / fps - 1:+.0%} and {high / fps - 1:+.0%} of its fps"
    )
    if job < _SHORTEST_FITTED_SECONDS:
        row.concerns.append(f"{1e3 * job:.2f} ms on the DPU is shorter than any network it was "
                            "fitted to: an extrapolation")  # fmt: skip
