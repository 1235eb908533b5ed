"""The plan of a measurement: its steps, in order, and the duration of each phase."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.app.sources.load_patterns import LOAD_PATTERNS
from tutelage.core.text import counted

REFUSALS = ("hot", "throttled", "disturbed", "brown-out", "disk")
"""Findings that prevent a measurement unless accepted; "brown-out" only leaves steps out."""

LEAST_SECONDS = 60.0
"""Shorter windows are marked. MLPerf's rules require this duration (Reddi et al. 2020)."""


@dataclass(frozen=True)
class Step:
    """One measured window.

    Attributes
    ----------
    scenario : one of `tutelage.app.sources.load_patterns.LOAD_PATTERNS`
    threads : number of lanes, each with a runner
    qps, bound_ms : arrivals per second and latency bound of "server", see
        `tutelage.app.sources.load_patterns.LoadPattern`
    repetition : 1, 2, ... if all steps are repeated
    """

    scenario: str
    threads: int
    qps: float = 0.0
    bound_ms: float | None = None
    repetition: int = 1

    @property
    def name(self) -> str:
        """The step as text, such as "offline, 4 threads"."""
        text = f"{self.scenario} {self.qps:g}/s" if self.qps else self.scenario
        text += f", {counted(self.threads, 'thread')}"
        return text + (f", repetition {self.repetition}" if self.repetition > 1 else "")


@dataclass(frozen=True)
class Phases:
    """Durations of the phases, s.

    Attributes
    ----------
    idle : baseline before the first and after the last step
    warm_up : unmeasured frames before a window
    seconds : the measured window
    cool_down : least rest between two steps
    """

    idle: float = 30.0
    warm_up: float = 5.0
    seconds: float = LEAST_SECONDS
    cool_down: float = 20.0

    def total(self, steps: int) -> float:
        """Return the least duration of a measurement with this many steps, s."""
        return 2 * self.idle + steps * (self.warm_up + self.seconds + self.cool_down)


@dataclass(frozen=True)
class MeasurementSettings:
    """Settings of a measurement.

    Attributes
    ----------
    steps, phases : the plan
    in_flight : concurrent jobs of each runner
    accepted : findings of REFUSALS that do not prevent the measurement
    realtime : board whose predicted speed the emulation is slowed down to; None for none
    images : name of the source of the frames
    started : start time given by the caller, ISO 8601; None for this machine's clock
    name : name of the model in the results; None for its own
    """

    steps: list[Step]
    phases: Phases
    in_flight: int
    accepted: tuple[str, ...]
    realtime: str | None
    images: str
    started: str | None = None
    name: str | None = None


def make_steps(patterns: list[str], threads: list[int], repetitions: int) -> list[Step]:
    """Return a step for each load pattern, number of threads and repetition.

    Repetitions are interleaved, so that slow changes of the machine affect all steps alike.
    single-stream has one frame in flight at a time, so it is measured with one thread only.

    Parameters
    ----------
    patterns : "single-stream", "offline", "server:QPS" or "server:QPS:BOUND_MS"
    threads : numbers of threads
    repetitions : how often all steps are measured

    Raises
    ------
    ValueError
        A text is not a load pattern; the message is one line.
    """
    steps: list[Step] = []
    for repetition in range(1, repetitions + 1):
        for text in patterns:
            name, qps, bound_ms = _load_pattern(text)
            numbers = [1] if name == "single-stream" else threads
            steps += [Step(name, count, qps, bound_ms, repetition) for count in numbers]
    if len(set(steps)) != len(steps):
        raise ValueError("a load pattern or a number of threads is given twice")
    return steps


def _load_pattern(text: str) -> tuple[str, float, float | None]:
    name, *numbers = text.split(":")
    if name not in LOAD_PATTERNS:
        raise ValueError(f"{text}: not a load pattern; choose from {', '.join(LOAD_PATTERNS)}")
    if (name == "server") != bool(numbers) or len(numbers) > 2:
        raise ValueError(f"{text}: only server takes a rate, as in server:100 or, with a bound of "
                         "15 ms, server:100:15")  # fmt: skip
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [0.0]
    if not all(0 < value < 1e6 for value in values):
        raise ValueError(f"{text}: rate and bound must be numbers above 0")
    return name, values[0] if values else 0.0, values[1] if len(values) > 1 else None
