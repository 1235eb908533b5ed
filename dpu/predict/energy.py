"""Power of a board and energy per frame: measured if there are runs, else estimates and bounds.

Measured runs are those written by `python -m tutelage.app.measure` on the board, run.json in
`results/<board>/*/`, and DPU rows of comparisons, bench.json in `results/bench/*/`; runs of the
emulation are ignored. Runs of the same model give its energy directly, those of other models the
board's power, both for the number of threads that was measured. For other numbers the power is
estimated from public figures (power.toml), together with bounds that the board cannot exceed: its
power at idle, and the limit of its supply (from its profile).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.core.board_profile import Profile, load_profile
from tutelage.core.errors import DpuError
from tutelage.core.locations import RESULTS
from tutelage.core.results.figure import MEASURED, PREDICTED, Figure
from tutelage.core.text import counted
from tutelage.core.toml_file import read_toml
from tutelage.dpu.predict.latency import Prediction
from tutelage.dpu.predict.measured_power import Step, found_steps, given_steps

PUBLIC = Path(__file__).with_name("power.toml")
"""Power of boards by public figures, with the sources."""

Range = tuple[float, float]


@dataclass(frozen=True)
class PublicPower:
    """The power of a whole board by public figures, W, each as (least, most).

    Attributes
    ----------
    cores : number of DPU cores that are all busy in `busy`
    rest, busy : with no busy core and with all cores busy; equal if no difference is known
    source : description of the source
    """

    cores: int
    rest: Range
    busy: Range
    source: str

    def watts(self, busy_cores: int) -> Figure:
        """Return the estimate for `busy_cores` busy cores; its value is the middle of the range."""
        share = min(busy_cores, self.cores) / self.cores
        low, high = (a + share * (b - a) for a, b in zip(self.rest, self.busy, strict=True))
        return Figure.predicted((low + high) / 2, low, high, "W")


@dataclass(frozen=True)
class BoardPower:
    """Power of the whole board while its DPU is busy.

    Steps that were measured with the same number of threads take precedence: those of the same
    model, else those of others. "As many threads as help" are those that keep all cores busy, so
    they are the most threads that were measured, if these are at least as many as the cores.

    Attributes
    ----------
    bounds : limits of the board's power, W, a range without a value; None if unknown
    public : power by public figures, None if there is none
    steps : measured steps; those with a doubt are not used
    cores : number of the board's DPU cores
    """

    bounds: Figure | None
    public: PublicPower | None
    steps: tuple[Step, ...]
    cores: int

    @property
    def measured(self) -> bool:
        """Whether the power with all cores busy comes from measured runs."""
        return bool(self._used(None))

    @property
    def source(self) -> str:
        """Description of the source of the power with all cores busy."""
        return self.source_with(None)

    def source_with(self, threads: int | None) -> str:
        """Return the description of the source of `watts(threads)`."""
        used = self._used(threads)
        if used:
            files = sorted({str(step.file) for step in used})
            whose = "this model" if used[0].same_model else "other models"
            where = ", ".join(files[:3]) + (", ..." if len(files) > 3 else "")
            return f"measured on the board in {counted(len(used), 'step')} of {whose}: {where}"
        source = self.public.source if self.public else BOUNDS_SOURCE
        if self.steps:
            measured = sorted({(step.threads, step.doubt) for step in self.steps})
            source += "; measured only with " + ", ".join(
                counted(threads, "thread") + (f" ({doubt})" if doubt else "")
                for threads, doubt in measured
            )
        return source

    def watts(self, threads: int | None = None) -> Figure:
        """Return the measured or estimated power with `threads` threads; None for as many as help.

        If unknown, the figure has neither value nor range.
        """
        used = self._used(threads)
        if used:
            return _spread([step.watts for step in used], "W")
        if self.public is None:
            return Figure(unit="W", kind=PREDICTED)
        return self.public.watts(self.public.cores if threads is None else threads)

    def joules_per_frame(self, prediction: Prediction, threads: int | None = None) -> Figure:
        """Return the energy per frame with `threads` threads, J; None for as many as help.

        It is measured if the steps are of this model; otherwise it is the power divided by the
        predicted frames per second. For an estimate the errors of both are independent: its range
        includes the mean error of the speed in quadrature.
        """
        own = [step.joules for step in self._used(threads) if step.same_model and step.joules]
        if own:
            return _spread(own, "J")
        watts, fps = self.watts(threads), prediction.fps(threads)
        if watts.value is None or watts.low is None or watts.high is None or not fps:
            return Figure(unit="J", kind=PREDICTED)
        value, error = watts.value / fps, math.log1p(prediction.mean_error(threads))
        below, above = (
            math.exp(math.hypot(math.log(watts.value / end), error))
            for end in (watts.low, watts.value**2 / watts.high)
        )
        return Figure.predicted(value, value / below, value * above, "J")

    def joule_bounds(self, prediction: Prediction, threads: int | None = None) -> Figure | None:
        """Return the bounds of the energy per frame, J: `bounds` divided by the speed's range."""
        (slowest, quickest), bounds = prediction.fps_range(threads), self.bounds
        if bounds is None or not bounds.low or not bounds.high or not slowest or not quickest:
            return None
        return Figure.predicted(None, bounds.low / quickest, bounds.high / slowest, "J")

    def _used(self, threads: int | None) -> Sequence[Step]:
        """Return the measured steps with `threads` threads; empty if there are none."""
        for same in (True, False):
            steps = [step for step in self.steps if step.same_model is same and not step.doubt]
            wanted = threads
            if threads is None:
                most = max((step.threads for step in steps), default=0)
                wanted = most if most >= self.cores else None
            if used := [step for step in steps if step.threads == wanted]:
                return used
        return []


def board_power(
    board: str, results: Path = RESULTS, model: Path | None = None, given: Iterable[Path] = ()
) -> BoardPower | None:
    """Return the power of a board, given its profile's file name; None if nothing is known.

    Parameters
    ----------
    results : folder to search for measured runs
    model : predicted .xmodel; runs of it take precedence over those of other models
    given : measured runs to use instead of those in `results`

    Raises
    ------
    DpuError
        There is no such board, or a given file is not a measurement on it.
    """
    profile = load_profile(board)
    steps = given_steps(given, profile, model) or found_steps(results, board, profile, model)
    public, bounds = _public(board, profile), _bounds(profile)
    if public is None and bounds is None and not steps:
        return None
    return BoardPower(bounds, public, tuple(steps), profile.dpu_cores)


BOUNDS_SOURCE = "from the board's idle power to the limit of its supply"


def _bounds(profile: Profile) -> Figure | None:
    if profile.total is None or profile.idle_watts is None:
        return None
    return Figure.predicted(None, profile.idle_watts, profile.total.max_watts, "W")


def _public(board: str, profile: Profile) -> PublicPower | None:
    """Return the power in power.toml of a board; its profile's idle power takes precedence."""
    found = _public_table().get(board)
    if found is None:
        return None
    try:
        busy, idle = _range(found["busy"]), profile.idle_watts
        rest = (idle, idle) if idle is not None else _range(found.get("rest", busy))
        return PublicPower(int(found["cores"]), rest, busy, str(found["source"]))
    except (LookupError, TypeError, ValueError) as error:
        raise DpuError(f"{PUBLIC}: {error!r}") from error


@cache
def _public_table() -> dict[str, Any]:
    return read_toml(PUBLIC)


def _range(pair: Sequence[Any]) -> Range:
    low, high = map(float, pair)
    return low, high


def _spread(values: Sequence[float], unit: str) -> Figure:
    """Return the median of measured values, with their least and greatest as range."""
    return Figure(statistics.median(values), min(values), max(values), n=len(values), unit=unit,
                  kind=MEASURED)  # fmt: skip
