"""The parts of `make bench`, each within its share of five minutes, and their execution."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rich.console import Console

from tests.benchmarks.extent import FULL, SHORT, CannotRun, Extent
from tutelage.core.commands import needs
from tutelage.core.errors import TutelageError, first_line

TOTAL_SECONDS = 300
"""Time that all parts take together by default, on two cores, s."""

DEFAULT = "default"
EXTENTS = (DEFAULT, "full", "short")


@dataclass(frozen=True)
class Part:
    """A module of this package with a function `report(extent)` that returns its figures.

    Attributes
    ----------
    name : of the module
    seconds, full_seconds : duration by default and in full on two cores, s
    extent : the default extent
    """

    name: str
    seconds: float
    full_seconds: float
    extent: Extent

    def report(self, extent: str) -> dict[str, Any]:
        """Run it; return its figures, by section.

        Raises
        ------
        TutelageError
            A package or a tool is missing; the message is one line.
        """
        extents = {DEFAULT: self.extent, "full": FULL, "short": SHORT}
        with needs("host"):
            module = import_module(f"{__package__}.{self.name}")
            found: dict[str, Any] = module.report(extents[extent])
        return found

    def expected(self, extent: str) -> float:
        """Return its duration on two cores, s; 0 for the short form."""
        return {DEFAULT: self.seconds, "full": self.full_seconds, "short": 0.0}[extent]


# The longest come last, since the last ones are left out if time runs short.
PARTS = (
    Part("training", 30, 30, Extent(repeats=5)),
    Part("emulation", 45, 60, Extent(repeats=9)),
    Part("instructions", 30, 60, Extent(images=25)),
    Part("power", 40, 80, Extent(repeats=3, seconds=2.0)),
    Part("application", 90, 330, Extent(repeats=4, seconds=0.5, frames=40_000)),
)


@dataclass
class Run:
    """The outcome of one run of the parts.

    Attributes
    ----------
    figures : by part
    left_out, failed : by part, the reason why it has no figures
    interrupted : whether Ctrl-C ended the run
    """

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run_parts(parts: Sequence[Part], extent: str, limit: float, progress: Progress) -> Run:
    """Run the parts in sequence; an error in one does not end the others.

    Parameters
    ----------
    extent : one of `EXTENTS`
    limit : a part that would end after this time, s, is not started
    """
    run, started = Run(), time.monotonic()
    for part in parts:
        try:
            progress.begin(part)
            if time.monotonic() - started + part.expected(extent) > limit:
                raise CannotRun(f"no time left; `make bench ARGS={part.name}` runs it alone")
            run.figures[part.name] = part.report(extent)
            progress.end(part, "done")
        except KeyboardInterrupt:
            run.interrupted = True
            break
        except TutelageError as error:
            run.left_out[part.name] = first_line(error)
            progress.end(part, "left out", first_line(error))
        except Exception as error:
            traceback.print_exc()
            run.failed[part.name] = first_line(error)
            progress.end(part, "failed", first_line(error))
    return run


class Progress:
    """Lines on standard error: the running part, its time and the time left, and its outcome.

    In between, only the parts themselves print, between their measurements, so that measurements
    have the machine to themselves.

    Parameters
    ----------
    parts : all parts that will run, in order
    extent : one of `EXTENTS`
    """

    def __init__(self, parts: Sequence[Part], extent: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._expected = [part.expected(extent) for part in parts]
        self._started = self._begun = time.monotonic()
        self._ended = 0
        self._pace = 1.0  # actual seconds per expected second

    def begin(self, part: Part) -> None:
        """Print that a part begins, its expected time, and that of all remaining ones."""
        self._begun = time.monotonic()
        own, *others = (self._pace * each for each in self._expected[self._ended :])
        text = f"about {clock(own)}; " if own else ""
        left = f", about {clock(own + sum(others))} left" if own else ""
        self._line(part, f"{text}{clock(self._begun - self._started)} gone{left}")

    def end(self, part: Part, outcome: str, reason: str = "") -> None:
        """Print that a part is done, left out or failed."""
        style = {"done": "green", "left out": "yellow", "failed": "red"}[outcome]
        text = f": {reason}" if reason else f" in {clock(time.monotonic() - self._begun)}"
        self._line(part, f"{outcome}{text}", style)
        self._ended += 1
        if outcome == "done":
            measured = sum(self._expected[: self._ended])
            if measured:
                self._pace = (time.monotonic() - self._started) / measured
        else:
            self._expected[self._ended - 1] = 0.0

    def _line(self, part: Part, text: str, style: str | None = None) -> None:
        place = f"{self._ended + 1}/{len(self._expected)} {part.name}: "
        self._console.print(place + text, style=style, markup=False, highlight=False,
                            soft_wrap=True)  # fmt: skip


def clock(seconds: float) -> str:
    """Return "m:ss".

    >>> clock(75.4)
    '1:15'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"
