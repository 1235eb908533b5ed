"""Estimate of the duration of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.core.results.bench_json import BenchSettings
from tutelage.host.bench.platform import CATALOGUE, PEERS
from tutelage.host.bench.subject import Subject

BATCHES = (8, 32, 128)
"""Batch sizes to try for Offline."""

TRY_SECONDS = 0.5
"""Length of a trial, and of the warm-up before it, s."""

IDLE_SECONDS = 5.0
"""Length of the measurement of idle power, if there is a meter, s."""

_START_SECONDS = 4.0  # of a process: imports, loading the model and classifying the images
_COMPILE_SECONDS = 40.0  # of torch.compile per batch size, for 100 layers on two cores
_LAYERS = 100
_WINDOWS = 2  # SingleStream and Offline


@dataclass(frozen=True)
class Duration:
    """Estimated duration.

    Attributes
    ----------
    preparing : of preparing the platforms, s
    measuring : of the windows, s
    """

    preparing: float
    measuring: float

    @property
    def text(self) -> str:
        """One line for the user."""
        whole = self.preparing + self.measuring
        return (
            f"about {_minutes(whole)}: {_minutes(self.measuring)} of windows, the rest, a rough "
            "estimate, for preparing the platforms; Ctrl-C stops and keeps complete repetitions"
        )


def expected(settings: BenchSettings, subject: Subject) -> Duration:
    """Return the estimated duration of a comparison if every platform is available.

    The time of the windows is known, except that the last batch may exceed it. That of compilation
    is estimated from the number of layers.
    """
    window = settings.seconds + settings.warm_up
    measuring = settings.repetitions * len(settings.platforms) * _WINDOWS * window
    trial = 2 * min(TRY_SECONDS, settings.seconds)
    layers = len(subject.graph.get_ops()) / _OPS_OF_A_LAYER if subject.graph else 0.0
    large = max(0.1, layers / _LAYERS)
    compiling = sum(CATALOGUE[name].compiles or name in PEERS for name in settings.platforms)
    preparing = len(settings.platforms) * (_START_SECONDS + len(BATCHES) * trial)
    preparing += compiling * large * _COMPILE_SECONDS * (1 + len(BATCHES))
    return Duration(preparing, measuring)


_OPS_OF_A_LAYER = 4.0  # in a quantised graph: weights, bias, the layer, its rounding


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
