"""What a window's own figures say against it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.measure.plan import LEAST_SECONDS, Step
from board.condition import Concern


def doubts(
    figures: Mapping[str, Any], step: Step, seconds: float, pace: Mapping[str, Any] | None
) -> list[Concern]:
    """Return the doubts about a window.

    Parameters
    ----------
    figures : of `step_figures`
    seconds : length of the window
    pace : of `board.realtime.Realtime.report`, where the emulation was paced
    """
    found, frames, power = [], figures["frames"], figures["power"]
    if seconds < LEAST_SECONDS:
        found.append(Concern("short", f"{seconds:g} s; it should have {LEAST_SECONDS:g} s"))
    if frames["failed"]:
        found.append(Concern("failures", f"{frames['failed']} frames failed"))
    if figures["sections"] is None:
        few = f"{frames['classified']} frames are too few for intervals"
        found.append(Concern("few frames", few))
    if figures["drift"] is not None and step.scenario != "server":
        way = "faster" if figures["drift"] > 0 else "slower"
        found.append(Concern("drift", f"the second half was {abs(figures['drift']):.1%} {way}"))
    if pace and pace["late"]:
        late = f"{pace['late']} of {pace['jobs']} jobs"
        found.append(Concern("late", f"the emulation took longer than the board in {late}"))
    if power["source"] != "none" and power["watts"]["value"] is None:
        found.append(Concern("power", "too many readings of the rail are missing"))
    p99, bound = figures["latency_ms"]["p99"]["value"], step.bound_ms
    if bound is not None and p99 is not None and p99 > bound:
        text = f"p99 is {p99:.2f} ms; the bound of {bound:g} ms is not kept"
        found.append(Concern("bound", text))
    return found
