"""What is measured: the steps of a run, in order, and how long each phase takes."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.app.sources.load_patterns import LOAD_PATTERNS
from tutelage.core.text import counted

REFUSALS = ("hot", "throttled", "disturbed", "brown-out", "disk")
"""What holds up a measurement unless it is accepted; "brown-out" only leaves steps out."""

LEAST_SECONDS = 60.0
"""A window that is shorter is marked: MLPerf's rules ask for as much (Reddi et al. 2020)."""


@dataclass(frozen=True)
class Step:
    """One measured window.

    Attributes
    ----------
    scenario : of `tutelage.app.sources.load_patterns.LOAD_PATTERNS`
    threads : lanes, each with a runner
    qps, bound_ms : of "server", see `tutelage.app.sources.load_patterns.Load`
    repetition : 1, 2, ... where all steps are done several times
    """

    scenario: str
    threads: int
    qps: float = 0.0
    bound_ms: float | None = None
    repetition: int = 1

    @property
    def name(self) -> str:
        """For a reader, such as "offline, 4 threads"."""
        text = f"{self.scenario} {self.qps:g}/s" if self.qps else self.scenario
        text += f", {counted(self.threads, 'thread')}"
        return text + (f", repetition {self.repetition}" if self.repetition > 1 else "")


@dataclass(frozen=True)
class Phases:
    """How long each phase takes, s.

    Attributes
    ----------
    idle : baseline before the first and behind the last step
    warm_up : frames run, nothing counts
    seconds : of the measured window
    cool_down : rest between two steps at least
    """

    idle: float = 30.0
    warm_up: float = 5.0
    seconds: float = LEAST_SECONDS
    cool_down: float = 20.0

    def total(self, steps: int) -> float:
        """Return how long so many steps take at least, s."""
        return 2 * self.idle + steps * (self.warm_up + self.seconds + self.cool_down)


@dataclass(frozen=True)
class MeasurementSettings:
    """How a measurement is made.

    Attributes
    ----------
    steps, phases : the plan
    in_flight : jobs that each runner has at once
    accepted : of REFUSALS
    realtime : the board whose pace the emulation keeps, None for none
    images : where the frames come from, for the reader
    name : of the model, for the reader; None: as it is called here
    started : the time now as whoever started this knows it; None: this machine's clock
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
    """Return the steps: every load pattern with every number of threads, again for each repetition.

    Repetitions are interleaved, so that slow changes of the machine meet every step alike.
    single-stream has one frame under way at any time: it is measured with one thread only.

    Parameters
    ----------
    patterns : "single-stream", "offline", or "server:QPS" or "server:QPS:BOUND_MS"

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
        raise ValueError("a load pattern or a number of threads is named twice")
    return steps


def _load_pattern(text: str) -> tuple[str, float, float | None]:
    name, *numbers = text.split(":")
    if name not in LOAD_PATTERNS:
        raise ValueError(f"{text}: not a load pattern; there are {', '.join(LOAD_PATTERNS)}")
    if (name == "server") != bool(numbers) or len(numbers) > 2:
        raise ValueError(f"{text}: server has a rate, as server:100 or, with a bound of 15 ms, "
                         "server:100:15; the others have none")  # fmt: skip
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [0.0]
    if not all(0 < value < 1e6 for value in values):
        raise ValueError(f"{text}: rate and bound are numbers above 0")
    return name, values[0] if values else 0.0, values[1] if len(values) > 1 else None
