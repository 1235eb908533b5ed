"""Doubts about a window that its own figures raise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tutelage.app.measure.plan import LEAST_SECONDS, Step
from tutelage.app.pipeline.run_summary import runners_text
from tutelage.core.digits import digits
from tutelage.core.results.figure import Figure
from tutelage.core.results.run_json import Concern, PowerResults, WindowFigures
from tutelage.core.text import counted


def window_warnings(
    figures: WindowFigures, step: Step, seconds: float, pace: Mapping[str, Any] | None
) -> list[Concern]:
    """Return the warnings about a window.

    Parameters
    ----------
    figures : result of `step_figures`
    step : the step of the window
    seconds : length of the window, s
    pace : result of `tutelage.board.realtime.Realtime.report`; None if the emulation was not paced
    """
    found = []
    if seconds < LEAST_SECONDS:
        found.append(Concern("short", f"{seconds:g} s; {LEAST_SECONDS:g} s are recommended"))
    found += _frame_warnings(figures, step, seconds)
    if pace and pace["late"]:
        late = f"{pace['late']} of {counted(pace['jobs'], 'job')}"
        found.append(Concern("late", f"the emulation took longer than the board in {late}"))
    found += _power_warnings(figures.power)
    return found + _bound_warnings(figures, step.bound_ms)


def _bound_warnings(figures: WindowFigures, bound: float | None) -> list[Concern]:
    p99, arrived = figures.latency_ms.p99.value, figures.frames.arrived
    if bound is None or (p99 is None and not arrived) or (p99 is not None and p99 <= bound):
        return []
    shown = f"{p99:.2f} ms" if p99 is not None else "that of frames without a result"
    return [Concern("bound", f"p99 is {shown}, above the bound of {bound:g} ms")]


def runner_warnings(restarts: int, hangs: int, retried: int) -> list[Concern]:
    """Return the warning about faults of the runners in a window, see `Pipeline`.

    Results come in order, so all threads wait while a runner does not answer.
    """
    if not restarts and not retried:
        return []
    return [Concern("runners", runners_text(restarts, hangs, retried))]


def _frame_warnings(figures: WindowFigures, step: Step, seconds: float) -> list[Concern]:
    found, frames = [], figures.frames
    if frames.failed:
        found.append(Concern("failures", f"{counted(frames.failed, 'frame')} failed"))
    if figures.sections is None:
        few = f"{frames.classified} frames are too few for intervals"
        found.append(Concern("few frames", few))
    if figures.drift is not None and step.scenario != "server":
        way = "faster" if figures.drift > 0 else "slower"
        found.append(Concern("drift", f"the second half was {abs(figures.drift):.1%} {way}"))
    if frames.arrived and (frames.unanswered or 0) > 0.01 * frames.arrived:
        text = f"{frames.unanswered} of {frames.arrived} frames that arrived have no result"
        found.append(Concern("unanswered", text))
    missed = step.qps * seconds - frames.classified - frames.failed
    # 2 %, and four standard deviations of the random arrivals.
    if step.qps and missed > 0.02 * step.qps * seconds + 4 * math.sqrt(step.qps * seconds):
        fps = frames.classified / seconds
        found.append(Concern("overload", f"{step.qps:g} frames per second arrived, {fps:.4g} were "
                             "classified; latency grows with time"))  # fmt: skip
    return found


def _power_warnings(power: PowerResults) -> list[Concern]:
    found = []
    if power.source != "none" and power.watts.value is None:
        found.append(Concern("power", _no_watts(power)))
    elif power.watts.value is not None:
        found += _within_error(power.watts_above_idle)
    return found + [Concern("sensor", warning.text) for warning in power.doubts or ()
                    if warning.rail == power.total_rail]  # fmt: skip


def _no_watts(power: PowerResults) -> str:
    if power.total_rail is None:
        return f"no rail that feeds the whole board: {power.reason}"
    return "too many of the rail's readings are missing or implausible"


def _within_error(above: Figure) -> list[Concern]:
    """Return a warning if the power above idle is within its uncertainty."""
    if above.value is None:
        return [Concern("above idle", "the idle power is not known")]
    error = (above.half_width or 0.0) + (above.sensor_error or 0.0)
    if above.value > error:
        return []
    text = f"{digits(above.value, 3)} W is less than its error, {digits(error, 2)} W"
    return [Concern("above idle", text)]
